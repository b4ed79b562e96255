//! What `#[repr(..)]` says, and whether it says enough. What the fields are is not its concern.

use syn::{Data, DeriveInput, Error, Ident, Token, parenthesized, token};

/// A representation that does not differ between two builds.
pub(crate) enum Representation {
    /// `#[repr(C)]` or `#[repr(transparent)]`.
    Fixed,
    /// An enum whose discriminant is this integer type.
    Primitive(Ident),
}

/// The integer types that may represent an enum's discriminant.
const PRIMITIVES: [&str; 12] =
    ["u8", "u16", "u32", "u64", "u128", "usize", "i8", "i16", "i32", "i64", "i128", "isize"];

impl Representation {
    /// The representation of `input`, or an error that says which one to add.
    pub(crate) fn of(input: &DeriveInput) -> syn::Result<Representation> {
        let mut fixed = false;
        let mut primitive = None;
        for attribute in input.attrs.iter().filter(|attribute| attribute.path().is_ident("repr")) {
            attribute.parse_nested_meta(|meta| {
                if meta.path.is_ident("C") || meta.path.is_ident("transparent") {
                    fixed = true;
                } else if let Some(ident) = meta.path.get_ident().filter(|ident| is_primitive(ident)) {
                    primitive = Some(ident.clone());
                } else if meta.input.peek(token::Paren) {
                    // `align(N)` and `packed(N)`: the compiler's `offset_of!` and `align_of` account for them.
                    let inner;
                    parenthesized!(inner in meta.input);
                    inner.parse::<proc_macro2::TokenStream>()?;
                } else if meta.input.peek(Token![=]) {
                    return Err(meta.error("unknown representation"));
                }
                Ok(())
            })?;
        }
        match (primitive, fixed) {
            (Some(primitive), _) => Ok(Representation::Primitive(primitive)),
            (None, true) => Ok(Representation::Fixed),
            (None, false) => Err(missing(input)),
        }
    }
}

fn is_primitive(ident: &Ident) -> bool {
    PRIMITIVES.iter().any(|primitive| ident == primitive)
}

fn missing(input: &DeriveInput) -> Error {
    let advice = match input.data {
        Data::Struct(_) | Data::Union(_) => "add `#[repr(C)]`",
        Data::Enum(_) => "add `#[repr(u8)]` (or another integer), or `#[repr(C)]`",
    };
    Error::new_spanned(
        &input.ident,
        format!(
            "`{}` needs a fixed representation to be `Shared`, because Rust's own may differ between builds: {advice}",
            input.ident
        ),
    )
}
