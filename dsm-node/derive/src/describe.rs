//! The statements that describe a type's fields and variants, each with the span of the field, so that the compiler's
//! error about a field that is not `Shared` points at that field.

use crate::representation::Representation;
use proc_macro2::TokenStream;
use quote::{format_ident, quote, quote_spanned};
use syn::spanned::Spanned;
use syn::{DataEnum, DataStruct, Fields, Member, Type};

/// The description of a struct, and the types of its fields.
pub(crate) fn structure(data: &DataStruct) -> (TokenStream, Vec<Type>) {
    let statements = data.fields.members().zip(&data.fields).map(|(member, field)| {
        let (kind, name) = (&field.ty, label(&member));
        quote_spanned! { kind.span() =>
            shape.field::<#kind>(#name, ::core::mem::offset_of!(Self, #member));
        }
    });
    (quote! { #(#statements)* }, data.fields.iter().map(|field| field.ty.clone()).collect())
}

/// The description of an enum, and the types of its variants' fields.
///
/// The offsets of a variant's fields follow from the representation and the order of the fields, so the order is
/// what is described.
pub(crate) fn enumeration(data: &DataEnum, representation: Representation) -> (TokenStream, Vec<Type>) {
    let integer = match representation {
        Representation::Fixed => quote!(isize),
        Representation::Primitive(ident) => quote!(#ident),
    };
    let mut statements = TokenStream::new();
    let mut types = Vec::new();
    for (index, variant) in data.variants.iter().enumerate() {
        let constant = format_ident!("DISCRIMINANT_{index}");
        let value = match (&variant.discriminant, index.checked_sub(1)) {
            (Some((_, expression)), _) => quote!(#expression),
            (None, None) => quote!(0),
            (None, Some(previous)) => {
                let previous = format_ident!("DISCRIMINANT_{previous}");
                quote!(#previous + 1)
            }
        };
        let name = variant.ident.to_string();
        statements.extend(quote! {
            const #constant: #integer = #value;
            shape.variant(#name, ::std::string::ToString::to_string(&#constant));
        });
        statements.extend(elements(&variant.fields));
        types.extend(variant.fields.iter().map(|field| field.ty.clone()));
    }
    (statements, types)
}

fn elements(fields: &Fields) -> TokenStream {
    let statements = fields.members().zip(fields).map(|(member, field)| {
        let (kind, name) = (&field.ty, label(&member));
        quote_spanned! { kind.span() => shape.element::<#kind>(#name); }
    });
    quote! { #(#statements)* }
}

/// A statement that compiles only if `kind` is `Plain`.
pub(crate) fn plain_check(kind: &Type) -> TokenStream {
    quote_spanned! { kind.span() => ::dsm_node::__private::assert_plain::<#kind>(); }
}

fn label(member: &Member) -> String {
    match member {
        Member::Named(ident) => ident.to_string(),
        Member::Unnamed(index) => index.index.to_string(),
    }
}
