//! The client's sources, parsed, and what its modules show to the outside.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use syn::{
    Attribute, Expr, File, ImplItem, Item, ItemImpl, ItemMod, Lit, Meta, Signature, Type, UseTree, Visibility,
    parse_quote,
};

use crate::numbers;

/// A module's path below the crate: none for its root.
pub(crate) type ModulePath = Vec<String>;

/// A name in a module.
pub(crate) type Name = (ModulePath, String);

/// The modules of a crate that are built for use, by path.
pub(crate) struct Sources(BTreeMap<ModulePath, Vec<Item>>);

/// A public type, trait, function or constant, with everything that is implemented for it.
pub(crate) struct PublicItem<'a> {
    /// As a program writes it: `blocking::Client`.
    pub(crate) path: String,
    pub(crate) item: &'a Item,
    pub(crate) impls: Vec<&'a ItemImpl>,
}

/// What one public module shows.
#[derive(Default)]
pub(crate) struct PublicModule<'a> {
    pub(crate) items: Vec<PublicItem<'a>>,
    /// What it shows of other crates: as written, and the path there.
    pub(crate) foreign: Vec<(String, Vec<String>)>,
}

impl Sources {
    /// Reads the crate whose `lib.rs` is in `root`.
    pub(crate) fn read(root: &Path) -> Self {
        let mut sources = Self(BTreeMap::new());
        sources.read_file(&root.join("lib.rs"), root, Vec::new());
        sources
    }

    /// One file as a whole crate.
    pub(crate) fn of(text: &str) -> Self {
        let file = syn::parse_file(text).expect("it is Rust");
        Self(BTreeMap::from([(Vec::new(), file.items)]))
    }

    /// Reads a file and, from `directory`, the modules that it declares.
    fn read_file(&mut self, file: &Path, directory: &Path, path: ModulePath) {
        let text = std::fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let items = syn::parse_file(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display())).items;
        let items: Vec<Item> = items.into_iter().flat_map(|item| expanded(item, &text)).collect();
        for item in &items {
            if let Item::Mod(ItemMod { content: None, ident, attrs, .. }) = item
                && !is_for_tests(attrs)
            {
                let (name, below) = (ident.to_string(), directory.join(ident.to_string()));
                let beside: PathBuf = directory.join(format!("{name}.rs"));
                let file = if beside.is_file() { beside } else { below.join("mod.rs") };
                self.read_file(&file, &below, [path.clone(), vec![name]].concat());
            }
        }
        self.0.insert(path, items);
    }

    /// What a program can name, by public module.
    pub(crate) fn public(&self) -> BTreeMap<ModulePath, PublicModule<'_>> {
        let mut public = BTreeMap::new();
        self.show(&Vec::new(), &mut public);
        public
    }

    fn show<'a>(&'a self, path: &ModulePath, public: &mut BTreeMap<ModulePath, PublicModule<'a>>) {
        let mut shown = PublicModule::default();
        for item in self.items(path) {
            match item {
                Item::Mod(module) if is_public(&module.vis) => {
                    self.show(&[path.clone(), vec![module.ident.to_string()]].concat(), public);
                }
                Item::Use(found) if is_public(&found.vis) => {
                    assert!(!has_glob(&found.tree), "{path:?} shows all of another module: name what it is to show");
                    for (name, target) in used(&found.tree) {
                        match self.resolve(path, &target) {
                            Some(place) => shown.items.push(self.public_item(path, &name, &place)),
                            None => shown.foreign.push((renamed(&target, &name), target)),
                        }
                    }
                }
                item => {
                    refuse_unlisted(path, item);
                    if let Some((name, _)) = named(item).filter(|(_, visibility)| is_public(visibility)) {
                        shown.items.push(self.public_item(path, &name, &(path.clone(), name.clone())));
                    }
                }
            }
        }
        shown.items.sort_by(|one, other| one.path.cmp(&other.path));
        shown.foreign.sort();
        public.insert(path.clone(), shown);
    }

    /// A type of this crate by the path that others write; `None` where a macro makes it that is not known here.
    pub(crate) fn named(&self, path: &[String]) -> Option<PublicItem<'_>> {
        let place = self.resolve(&Vec::new(), path)?;
        Some(self.public_item(&Vec::new(), &place.1, &place))
    }

    fn public_item(&self, path: &ModulePath, name: &str, place: &Name) -> PublicItem<'_> {
        let item = self.defined(place).unwrap_or_else(|| panic!("{place:?} is shown and nowhere defined"));
        let path = [path.clone(), vec![name.to_owned()]].concat().join("::");
        PublicItem { path, item, impls: self.impls(place) }
    }

    fn items(&self, path: &ModulePath) -> &[Item] {
        self.0.get(path).map_or(&[], Vec::as_slice)
    }

    fn defined(&self, (path, name): &Name) -> Option<&Item> {
        self.items(path).iter().find(|item| named(item).is_some_and(|(found, _)| found == *name))
    }

    /// Where a path that is written in a module leads, if it stays in the crate.
    fn resolve(&self, from: &ModulePath, written: &[String]) -> Option<Name> {
        let mut path = from.clone();
        let mut rest = written;
        loop {
            match rest {
                [first, more @ ..] if first == "crate" => (path, rest) = (Vec::new(), more),
                [first, more @ ..] if first == "self" => rest = more,
                [first, more @ ..] if first == "super" => {
                    path.pop();
                    rest = more;
                }
                [name] => break self.look_up(&(path, name.clone())),
                [module, more @ ..] => {
                    path.push(module.clone());
                    rest = more;
                    if !self.0.contains_key(&path) {
                        break None;
                    }
                }
                [] => break None,
            }
        }
    }

    /// Follows what a module only passes on.
    fn look_up(&self, name: &Name) -> Option<Name> {
        if self.defined(name).is_some() {
            return Some(name.clone());
        }
        let uses =
            self.items(&name.0).iter().filter_map(|item| if let Item::Use(found) = item { Some(found) } else { None });
        let mut written = uses.flat_map(|found| used(&found.tree)).filter(|(found, _)| *found == name.1);
        written.find_map(|(_, target)| self.resolve(&name.0, &target))
    }

    /// What is implemented for a type, and for which types a trait is, wherever that is.
    fn impls(&self, place: &Name) -> Vec<&ItemImpl> {
        let mut found = Vec::new();
        for (path, items) in &self.0 {
            let is_it = |written: &syn::Path| {
                let written: Vec<String> = written.segments.iter().map(|part| part.ident.to_string()).collect();
                self.resolve(path, &written).as_ref() == Some(place)
            };
            for item in items {
                if let Item::Impl(block) = item
                    && !is_for_tests(&block.attrs)
                {
                    let is_for_it = matches!(&*block.self_ty, Type::Path(of) if is_it(&of.path));
                    let is_of_it = block.trait_.as_ref().is_some_and(|(_, implemented, _)| is_it(implemented));
                    if is_for_it || is_of_it {
                        found.push(block);
                    }
                }
            }
        }
        found
    }
}

impl PublicItem<'_> {
    /// The text of its documentation, and of that of its public methods, each with its path.
    pub(crate) fn documented(&self) -> Vec<Documented> {
        let is_async = match self.item {
            Item::Fn(function) => gives_future(&function.sig),
            _ => self.is_future(),
        };
        let mut found = vec![Documented::new(&self.path, attributes(self.item), is_async)];
        if let Item::Trait(shown) = self.item {
            for item in &shown.items {
                if let syn::TraitItem::Fn(method) = item {
                    let path = format!("{}::{}", self.path, method.sig.ident);
                    found.push(Documented::new(&path, &method.attrs, gives_future(&method.sig)));
                }
            }
        }
        for item in self.impls.iter().filter(|block| block.trait_.is_none()).flat_map(|block| &block.items) {
            if let ImplItem::Fn(method) = item
                && is_public(&method.vis)
            {
                let path = format!("{}::{}", self.path, method.sig.ident);
                found.push(Documented::new(&path, &method.attrs, gives_future(&method.sig)));
            }
        }
        found
    }

    pub(crate) fn is_type(&self) -> bool {
        matches!(self.item, Item::Struct(_) | Item::Enum(_))
    }

    /// Whether a program can await it.
    fn is_future(&self) -> bool {
        let mut implemented = self.impls.iter().filter_map(|block| block.trait_.as_ref());
        implemented.any(|(_, implemented, _)| implemented.segments.last().is_some_and(|last| last.ident == "Future"))
    }
}

/// What is said of something public.
pub(crate) struct Documented {
    pub(crate) path: String,
    pub(crate) text: String,
    /// It is a future, or gives one that has no name of its own.
    pub(crate) is_async: bool,
}

impl Documented {
    fn new(path: &str, attributes: &[Attribute], is_async: bool) -> Self {
        let line = |attribute: &Attribute| match &attribute.meta {
            Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
                Expr::Lit(literal) => match &literal.lit {
                    Lit::Str(text) => Some(text.value()),
                    _ => None,
                },
                _ => None,
            },
            _ => None,
        };
        let text = attributes.iter().filter_map(line).collect::<Vec<_>>().join("\n");
        Self { path: path.to_owned(), text, is_async }
    }
}

/// Whether a call gives a future without a name of its own; one with a name speaks for itself.
fn gives_future(signature: &Signature) -> bool {
    let output = &signature.output;
    let given = parse_quote!(fn given() #output {});
    let text = prettyplease::unparse(&File { shebang: None, attrs: Vec::new(), items: vec![given] });
    signature.asyncness.is_some() || text.split(|sign: char| !sign.is_alphanumeric()).any(|word| word == "Future")
}

pub(crate) fn is_public(visibility: &Visibility) -> bool {
    matches!(visibility, Visibility::Public(_))
}

fn is_for_tests(attributes: &[Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && matches!(&attribute.meta, Meta::List(list) if list.tokens.to_string() == "test")
    })
}

/// The items that a macro makes, or passes on as they are, with more of its own.
fn expanded(item: Item, file: &str) -> Vec<Item> {
    if let Some(items) = numbers::made(&item, file) {
        return items;
    }
    if let Item::Macro(called) = &item
        && called.ident.is_none()
        && let Ok(File { items, .. }) = syn::parse2(called.mac.tokens.clone())
    {
        return items;
    }
    vec![item]
}

fn named(item: &Item) -> Option<(String, &Visibility)> {
    let (ident, visibility) = match item {
        Item::Struct(item) => (&item.ident, &item.vis),
        Item::Enum(item) => (&item.ident, &item.vis),
        Item::Trait(item) => (&item.ident, &item.vis),
        Item::Type(item) => (&item.ident, &item.vis),
        Item::Const(item) => (&item.ident, &item.vis),
        Item::Fn(item) => (&item.sig.ident, &item.vis),
        _ => return None,
    };
    Some((ident.to_string(), visibility))
}

fn attributes(item: &Item) -> &[Attribute] {
    match item {
        Item::Struct(item) => &item.attrs,
        Item::Enum(item) => &item.attrs,
        Item::Trait(item) => &item.attrs,
        Item::Type(item) => &item.attrs,
        Item::Const(item) => &item.attrs,
        Item::Fn(item) => &item.attrs,
        _ => &[],
    }
}

/// The names that a `use` brings, each with the path that is written.
fn used(tree: &UseTree) -> Vec<(String, Vec<String>)> {
    match tree {
        UseTree::Path(path) => used(&path.tree)
            .into_iter()
            .map(|(name, rest)| (name, [vec![path.ident.to_string()], rest].concat()))
            .collect(),
        UseTree::Name(name) => vec![(name.ident.to_string(), vec![name.ident.to_string()])],
        UseTree::Rename(name) => vec![(name.rename.to_string(), vec![name.ident.to_string()])],
        UseTree::Group(group) => group.items.iter().flat_map(used).collect(),
        UseTree::Glob(_) => Vec::new(),
    }
}

fn has_glob(tree: &UseTree) -> bool {
    match tree {
        UseTree::Path(path) => has_glob(&path.tree),
        UseTree::Group(group) => group.items.iter().any(has_glob),
        UseTree::Glob(_) => true,
        UseTree::Name(_) | UseTree::Rename(_) => false,
    }
}

/// What a program could name and no listing has must not be there.
fn refuse_unlisted(path: &ModulePath, item: &Item) {
    let shown = match item {
        Item::Static(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::Union(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::TraitAlias(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::ExternCrate(item) if is_public(&item.vis) => Some(item.ident.to_string()),
        Item::Macro(item) if item.attrs.iter().any(|attribute| attribute.path().is_ident("macro_export")) => {
            Some(item.ident.as_ref().map_or_else(String::new, ToString::to_string))
        }
        _ => None,
    };
    assert!(shown.is_none(), "{path:?} shows {shown:?}, of a kind that the listing does not know: teach it that");
}

fn renamed(target: &[String], name: &str) -> String {
    let path = target.join("::");
    if target.last().is_some_and(|last| last == name) { path } else { format!("{path} as {name}") }
}
