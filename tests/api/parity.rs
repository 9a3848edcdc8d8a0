//! The blocking client has what the async one has, by the same names.

use std::collections::BTreeMap;

use syn::{ImplItem, Item, Signature, parse_quote};

use crate::sources::{PublicItem, Sources, is_public};

/// What has no twin of its name and signature, and what a blocking program uses instead.
const OTHERWISE: [(&str, &str); 5] = [
    ("Connection", "no part of a client's shape: one connection, for tools"),
    ("Consumer::subscribe", "the handler is no future"),
    ("Consumer::subscribe_with", "the handler is no future"),
    ("PendingDelivery", "`wait`: the async one is itself a future"),
    ("RecordStream::next", "it is an iterator"),
];

/// What an async program can call and a blocking one cannot, or only with other arguments or another result.
pub(crate) fn missing(sources: &Sources) -> Vec<String> {
    let public = sources.public();
    let types = |module: &[&str]| -> BTreeMap<String, BTreeMap<String, Method>> {
        let path: Vec<String> = module.iter().map(|name| (*name).to_owned()).collect();
        let items = public.get(&path).map(|module| module.items.iter()).into_iter().flatten();
        let name = |item: &PublicItem<'_>| item.path.rsplit("::").next().unwrap_or_default().to_owned();
        items.filter(|item| item.is_type()).map(|item| (name(item), methods(item))).collect()
    };
    let (asynchronous, blocking) = (types(&[]), types(&["blocking"]));
    let mut missing = Vec::new();
    for (name, methods) in asynchronous {
        let twin = blocking.get(&name);
        if twin.is_none() && !methods.values().any(|method| method.is_async) {
            continue;
        }
        for (method, Method { signature, .. }) in methods {
            let path = format!("{name}::{method}");
            let its = twin.and_then(|twin| twin.get(&method)).map(|method| &method.signature);
            let is_known = OTHERWISE.iter().any(|(known, _)| [&name, &path].iter().any(|path| path == known));
            if !is_known && its != Some(&signature) {
                missing.push(format!("{path}: {signature}, there: {its:?}"));
            }
        }
    }
    missing
}

/// A public method.
struct Method {
    is_async: bool,
    /// As text, without saying that it is async.
    signature: String,
}

/// The public methods of a type, by name.
fn methods(item: &PublicItem<'_>) -> BTreeMap<String, Method> {
    let own = item.impls.iter().filter(|block| block.trait_.is_none()).flat_map(|block| &block.items);
    let methods = own.filter_map(|item| match item {
        ImplItem::Fn(method) if is_public(&method.vis) => {
            let is_async = method.sig.asyncness.is_some();
            Some((method.sig.ident.to_string(), Method { is_async, signature: printed(method.sig.clone()) }))
        }
        _ => None,
    });
    methods.collect()
}

fn printed(mut signature: Signature) -> String {
    signature.asyncness = None;
    // Whether a function changes its own argument is nobody's business.
    if let Some(syn::FnArg::Receiver(receiver)) = signature.inputs.first_mut()
        && receiver.reference.is_none()
    {
        receiver.mutability = None;
    }
    for input in &mut signature.inputs {
        if let syn::FnArg::Typed(typed) = input
            && let syn::Pat::Ident(pattern) = &mut *typed.pat
        {
            pattern.mutability = None;
        }
    }
    let item: Item = parse_quote!(#signature {});
    let text = prettyplease::unparse(&syn::File { shebang: None, attrs: Vec::new(), items: vec![item] });
    text.trim().trim_end_matches("{}").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_blocking_client_has_what_the_async_one_has() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is below the root");
        let sources = Sources::read(&root.join("src/client"));
        let missing = missing(&sources);
        assert!(missing.is_empty(), "blocking lacks these, or has them otherwise:\n{}", missing.join("\n"));
        for (path, why) in OTHERWISE {
            let name = path.split("::").next().unwrap_or_default();
            let item = sources.named(&[name.to_owned()]).unwrap_or_else(|| panic!("no {name} is left: {why}"));
            let method = path.split_once("::").map(|(_, method)| method);
            assert!(method.is_none_or(|method| methods(&item).contains_key(method)), "no {path} is left: {why}");
        }
    }

    #[test]
    fn what_has_no_twin_is_seen() {
        let sources = Sources::of(
            "pub struct Client; impl Client { pub async fn both(&self, mut a: u8) -> u8 { a } pub async fn one(&self) {}\n\
             pub fn other(&self, a: u8) {} async fn private(&self) {} }\n\
             pub struct Alone; impl Alone { pub async fn wait(&self) {} }\n\
             pub struct Plain; impl Plain { pub fn get(&self) {} }\n\
             pub mod blocking { }",
        );
        assert_eq!(missing(&sources).len(), 4, "none has a twin, and Plain needs none: {:?}", missing(&sources));
    }
}
