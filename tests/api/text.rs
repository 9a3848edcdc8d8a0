//! The public API as text: everything that a program can name, with its signature.

use std::fmt::Write as _;

use ringmq_client::ErrorCode;
use syn::{
    Attribute, Fields, FieldsNamed, File, FnArg, ImplItem, Item, ItemImpl, Meta, Pat, TraitItem, Visibility,
    parse_quote,
};

use crate::sources::{PublicItem, Sources, is_public};

/// Stands for what a program cannot name.
const HIDDEN: &str = "_hidden: (),";

/// All modules, each with what it shows of other crates and its own items, by name; and the types of `wire`, where the
/// others come from.
pub(crate) fn text(sources: &Sources, wire: &Sources) -> String {
    let mut text = String::new();
    for (path, module) in sources.public() {
        let name = [vec!["ringmq_client".to_owned()], path].concat().join("::");
        // Writing to a string does not fail.
        let _ = writeln!(text, "// {name}\n");
        for (foreign, _) in &module.foreign {
            let _ = writeln!(text, "pub use {foreign};");
        }
        for (foreign, path) in &module.foreign {
            if let Some(item) = wire.named(&path[1..]) {
                let _ = writeln!(text, "\n// {foreign}\n{}", item_text(&item).trim_end());
            } else if path.last().is_some_and(|name| name == "ErrorCode") {
                // A table makes it.
                let codes = ErrorCode::ALL.iter().map(|code| format!("    {code:?} = {},\n", *code as u16));
                let _ = writeln!(text, "\n// {foreign}\nimpl ErrorCode {{\n{}}}", codes.collect::<String>());
            }
        }
        for item in &module.items {
            let _ = writeln!(text, "\n{}", item_text(item).trim_end());
        }
        text.push('\n');
    }
    text.trim_end().to_owned() + "\n"
}

fn item_text(public: &PublicItem<'_>) -> String {
    let mut item = public.item.clone();
    strip(&mut item);
    let mut own: Option<ItemImpl> = None;
    let mut traits: Vec<Item> = Vec::new();
    for block in public.impls.iter().filter_map(|block| stripped(block)) {
        match &mut own {
            _ if block.trait_.is_some() => traits.push(Item::Impl(block)),
            // In as many blocks and files as it may be, to a program it is one.
            Some(own) => own.items.extend(block.items),
            None => own = Some(block),
        }
    }
    if let Some(own) = &mut own {
        own.items.sort_by_key(name);
    }
    traits.sort_by_key(|item| print(vec![item.clone()]));
    print([vec![item], own.map(Item::Impl).into_iter().collect(), traits].concat())
}

fn print(items: Vec<Item>) -> String {
    let text = prettyplease::unparse(&File { shebang: None, attrs: Vec::new(), items });
    let line = |line: &str| match line {
        // Behind a `where`.
        line if line.trim() == "{}" => String::new(),
        line if line.trim() == HIDDEN => line.replace(HIDDEN, "// and what is private"),
        // A body that was left out.
        line => line.strip_suffix(" {}").map_or(line.to_owned(), |line| format!("{line};")),
    };
    text.lines().map(line).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
}

fn name(item: &ImplItem) -> String {
    match item {
        ImplItem::Fn(method) => method.sig.ident.to_string(),
        ImplItem::Const(constant) => constant.ident.to_string(),
        _ => String::new(),
    }
}

/// Leaves out documentation, and what is private.
fn strip(item: &mut Item) {
    match item {
        Item::Struct(item) => {
            keep_telling(&mut item.attrs);
            strip_fields(&mut item.fields);
        }
        Item::Enum(item) => {
            keep_telling(&mut item.attrs);
            for variant in &mut item.variants {
                keep_telling(&mut variant.attrs);
                variant.fields.iter_mut().for_each(|field| keep_telling(&mut field.attrs));
            }
        }
        Item::Trait(item) => {
            keep_telling(&mut item.attrs);
            for item in &mut item.items {
                if let TraitItem::Fn(method) = item {
                    keep_telling(&mut method.attrs);
                    method.default = method.default.take().map(|_| parse_quote!({}));
                }
            }
        }
        Item::Type(item) => keep_telling(&mut item.attrs),
        Item::Const(item) => keep_telling(&mut item.attrs),
        Item::Fn(item) => {
            keep_telling(&mut item.attrs);
            *item.block = parse_quote!({});
        }
        _ => {}
    }
}

fn strip_fields(fields: &mut Fields) {
    let all = fields.len();
    match fields {
        Fields::Named(named) => {
            let public = named.named.iter().filter(|field| is_public(&field.vis)).cloned();
            let mut left: FieldsNamed = FieldsNamed { brace_token: named.brace_token, named: public.collect() };
            if left.named.len() < all {
                let hidden: FieldsNamed = parse_quote!({ _hidden: () });
                left.named.extend(hidden.named);
            }
            *named = left;
        }
        Fields::Unnamed(unnamed) => {
            for field in unnamed.unnamed.iter_mut().filter(|field| !is_public(&field.vis)) {
                field.ty = parse_quote!(_);
            }
        }
        Fields::Unit => {}
    }
    fields.iter_mut().for_each(|field| keep_telling(&mut field.attrs));
}

/// What a program sees of an `impl`; `None` when that is nothing.
fn stripped(block: &ItemImpl) -> Option<ItemImpl> {
    let mut block = block.clone();
    let is_trait = block.trait_.is_some();
    block.attrs.clear();
    let mut items = Vec::new();
    for item in block.items {
        match item {
            ImplItem::Fn(mut method) if !is_trait && is_public(&method.vis) => {
                keep_telling(&mut method.attrs);
                method.block = parse_quote!({});
                method.sig.inputs.iter_mut().for_each(forget_mut);
                items.push(ImplItem::Fn(method));
            }
            ImplItem::Const(mut constant) if !is_trait && is_public(&constant.vis) => {
                keep_telling(&mut constant.attrs);
                items.push(ImplItem::Const(constant));
            }
            ImplItem::Type(mut associated) => {
                associated.attrs.clear();
                associated.vis = Visibility::Inherited;
                items.push(ImplItem::Type(associated));
            }
            _ => {}
        }
    }
    block.items = items;
    (is_trait || !block.items.is_empty()).then_some(block)
}

/// Whether a function changes its own argument is nobody's business.
fn forget_mut(argument: &mut FnArg) {
    match argument {
        FnArg::Receiver(receiver) if receiver.reference.is_none() => receiver.mutability = None,
        FnArg::Receiver(_) => {}
        FnArg::Typed(typed) => {
            if let Pat::Ident(pattern) = &mut *typed.pat {
                pattern.mutability = None;
            }
        }
    }
}

/// Keeps the attributes that are part of what a program relies on.
fn keep_telling(attributes: &mut Vec<Attribute>) {
    attributes.retain(|attribute| {
        let is = |name| attribute.path().is_ident(name);
        is("derive") || is("non_exhaustive") || is("must_use") || is("default")
    });
    for attribute in attributes.iter_mut().filter(|attribute| attribute.path().is_ident("must_use")) {
        // Its words may change.
        attribute.meta = Meta::Path(parse_quote!(must_use));
    }
}
