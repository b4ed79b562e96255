//! `#[derive(Shared)]`: the check that a type's bytes mean the same on every node, and the description of its layout.
//!
//! The macro only writes down what the compiler then proves: that the type has a stable representation (checked
//! here, by its `#[repr]`), and that each field is `Shared` (checked by the compiler, in the body of the generated
//! function, so that a recursive type needs no endless `where` clause). What a layout is compared with, and when, is
//! not its duty: that is `dsm_node`'s.

mod describe;
mod representation;

use proc_macro::TokenStream;
use quote::quote;
use representation::Representation;
use syn::{Attribute, Data, DeriveInput, Error, GenericParam, Generics, parse_macro_input, parse_quote};

/// Implements `dsm_node::Shared`: the type may live in distributed shared memory.
///
/// - The type needs `#[repr(C)]`, `#[repr(transparent)]`, or, for an enum, a primitive representation such as
///   `#[repr(u8)]`: Rust's own representation may differ between two builds.
/// - Each field must be `Shared`. A field that is not is what the error points at.
/// - Type parameters get a `T: Shared` bound.
/// - `#[shared(plain)]` on a struct implements `dsm_node::Plain` too, if each field is `Plain`: zero bytes are a
///   value, and it owns nothing.
#[proc_macro_derive(Shared, attributes(shared))]
pub fn derive_shared(input: TokenStream) -> TokenStream {
    let input = parse_macro_input!(input as DeriveInput);
    expand(&input).unwrap_or_else(Error::into_compile_error).into()
}

fn expand(input: &DeriveInput) -> syn::Result<proc_macro2::TokenStream> {
    let representation = Representation::of(input)?;
    let plain = wants_plain(&input.attrs)?;
    reject_lifetimes(&input.generics)?;
    let (description, fields) = match &input.data {
        Data::Struct(data) => describe::structure(data),
        Data::Enum(data) => describe::enumeration(data, representation),
        Data::Union(data) => {
            return Err(Error::new(
                data.union_token.span,
                "a union cannot be `Shared`: nobody can tell which of its fields holds; use an enum with `#[repr(C)]`",
            ));
        }
    };
    if plain && !matches!(input.data, Data::Struct(_)) {
        return Err(Error::new_spanned(
            &input.ident,
            "`#[shared(plain)]` is for structs: zero bytes need not be a variant of an enum",
        ));
    }
    let name = &input.ident;
    let bounded = with_bound(&input.generics, &parse_quote!(::dsm_node::Shared));
    let (implementing, arguments, clauses) = bounded.split_for_impl();
    let mut tokens = quote! {
        // SAFETY: the macro has checked that the representation is a stable one; that each field is `Shared` is
        // checked by the calls in the body, which do not compile otherwise.
        #[automatically_derived]
        #[diagnostic::do_not_recommend]
        unsafe impl #implementing ::dsm_node::Shared for #name #arguments #clauses {
            fn describe(shape: &mut ::dsm_node::__private::Shape) {
                #description
            }
        }
    };
    if plain {
        tokens.extend(implement_plain(input, &fields));
    }
    if input.generics.params.is_empty() {
        tokens.extend(quote! {
            ::dsm_node::__private::inventory::submit! {
                ::dsm_node::__private::Registration::of::<#name>()
            }
        });
    }
    Ok(tokens)
}

/// `Plain`, with one check per field, and one that the type has no `Drop` of its own: `impl Drop` would make the
/// two implementations of the local trait overlap, which the compiler refuses.
fn implement_plain(input: &DeriveInput, fields: &[syn::Type]) -> proc_macro2::TokenStream {
    let name = &input.ident;
    let bounded = with_bound(&input.generics, &parse_quote!(::dsm_node::Plain));
    let (implementing, arguments, clauses) = bounded.split_for_impl();
    let checks = fields.iter().map(describe::plain_check);
    quote! {
        // SAFETY: each field is `Plain`, which the calls in the body check; so zero bytes are a value of each, and
        // none owns anything.
        #[automatically_derived]
        #[diagnostic::do_not_recommend]
        unsafe impl #implementing ::dsm_node::Plain for #name #arguments #clauses {
            fn check_fields() {
                #(#checks)*
            }
        }
        const _: () = {
            #[allow(dead_code)]
            trait PlainTypesHaveNoDrop {}
            #[allow(drop_bounds)]
            impl<T: ::core::ops::Drop> PlainTypesHaveNoDrop for T {}
            #[automatically_derived]
            impl #implementing PlainTypesHaveNoDrop for #name #arguments #clauses {}
        };
    }
}

fn with_bound(generics: &Generics, bound: &syn::TypeParamBound) -> Generics {
    let mut bounded = generics.clone();
    for parameter in &mut bounded.params {
        match parameter {
            GenericParam::Type(parameter) => parameter.bounds.push(bound.clone()),
            GenericParam::Lifetime(_) | GenericParam::Const(_) => {}
        }
    }
    bounded
}

fn reject_lifetimes(generics: &Generics) -> syn::Result<()> {
    match generics.lifetimes().next() {
        None => Ok(()),
        Some(lifetime) => Err(Error::new_spanned(
            lifetime,
            "a `Shared` type cannot borrow: what it would borrow from lives in one process; use `DsmRef<T>`",
        )),
    }
}

fn wants_plain(attributes: &[Attribute]) -> syn::Result<bool> {
    let mut plain = false;
    for attribute in attributes.iter().filter(|attribute| attribute.path().is_ident("shared")) {
        attribute.parse_nested_meta(|meta| {
            if meta.path.is_ident("plain") {
                plain = true;
                Ok(())
            } else {
                Err(meta.error("`shared` takes `plain` only: `#[shared(plain)]`"))
            }
        })?;
    }
    Ok(plain)
}
