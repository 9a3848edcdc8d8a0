//! The newtypes of `ringmq-wire`, which macros make: `number! { /// What it is. Name(inner) }`.

use syn::parse::{Parse, ParseStream};
use syn::{Attribute, File, Ident, Item, Token, parenthesized};

/// What a type is declared with.
const DECLARED: &str = "($(#[$meta:meta])* $name:ident($inner:ty))";
/// What one macro leaves to another's arm: `@shown Name(inner)`.
const LEFT: &str = "$name:ident($inner:ty))";

/// The items that a call makes, where the file defines such a macro.
pub(crate) fn made(call: &Item, file: &str) -> Option<Vec<Item>> {
    let Item::Macro(called) = call else { return None };
    let name = called.mac.path.get_ident().filter(|_| called.ident.is_none())?.to_string();
    let Call { attributes, arm, name: made, inner } = syn::parse2(called.mac.tokens.clone()).ok()?;
    let pattern = arm.map_or(DECLARED.to_owned(), |arm| format!("(@{arm} {LEFT}"));
    let body = body(file, &name, &pattern)?;
    let body = body.replace("$(#[$meta])*", "").replace("$name", &made).replace("$inner", &inner);
    let File { items, .. } = syn::parse_str(&body).unwrap_or_else(|error| panic!("{name}! {made}: {error}"));
    let mut all = Vec::new();
    for mut item in items {
        if let Item::Struct(item) = &mut item {
            item.attrs.splice(0..0, attributes.iter().cloned());
        }
        match self::made(&item, file) {
            Some(more) => all.extend(more),
            None => all.push(item),
        }
    }
    Some(all)
}

/// What an arm of a macro stands for, as rustfmt sets it.
fn body<'t>(file: &'t str, name: &str, pattern: &str) -> Option<&'t str> {
    let (_, definition) = file.split_once(&format!("macro_rules! {name} {{\n"))?;
    let (definition, _) = definition.split_once("\n}\n")?;
    let (_, from) = definition.split_once(&format!("    {pattern} => {{\n"))?;
    from.split_once("\n    };").map(|(body, _)| body)
}

struct Call {
    attributes: Vec<Attribute>,
    arm: Option<String>,
    name: String,
    inner: String,
}

impl Parse for Call {
    fn parse(input: ParseStream<'_>) -> syn::Result<Self> {
        let attributes = Attribute::parse_outer(input)?;
        let arm = match input.parse::<Option<Token![@]>>()? {
            Some(_) => Some(input.parse::<Ident>()?.to_string()),
            None => None,
        };
        let name = input.parse::<Ident>()?.to_string();
        let inner;
        parenthesized!(inner in input);
        Ok(Self { attributes, arm, name, inner: inner.parse::<Ident>()?.to_string() })
    }
}
