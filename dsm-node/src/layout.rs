//! What a type's bytes look like, in words and as a number, so that nodes can compare it.
//!
//! Two nodes that give a name to an object, or a type, must mean the same bytes by it: the same fields at the same
//! offsets, through pointers too. Each [`Shared`] type describes its own part; this module walks from one type to all
//! that it reaches, once each, and condenses the whole description into 64 bits. When the comparison is made is not
//! its duty: the join and the roots do that.

use crate::shared::{Plain, Shared};
use std::any::{TypeId, type_name};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt::Write;
use std::mem::{align_of, size_of};

/// What a type looks like, with everything that it reaches.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Identity {
    /// The name of the type, without the paths of modules.
    pub name: String,
    /// Condenses `text`. The same in every process.
    pub hash: u64,
    /// The description, one line per type.
    pub text: String,
}

/// The layout of `T` and of every type that it reaches.
pub(crate) fn identity<T: Shared>() -> Identity {
    let mut shape = Shape {
        text: String::new(),
        fields: 0,
        known: HashMap::new(),
        namesakes: BTreeMap::new(),
        pending: VecDeque::new(),
    };
    let name = shape.mention::<T>();
    while let Some(next) = shape.pending.pop_front() {
        shape.line(&next);
    }
    Identity { name, hash: fnv1a(shape.text.as_bytes()), text: shape.text }
}

/// The derived types of this program that are not generic: name and hash, sorted, each once.
pub(crate) fn registered() -> Vec<(String, u64)> {
    let mut types: Vec<(String, u64)> = inventory::iter::<Registration>
        .into_iter()
        .map(|registration| {
            let identity = (registration.identity)();
            (identity.name, identity.hash)
        })
        .collect();
    types.sort();
    types.dedup();
    types
}

/// The compiler that laid the types out. Layouts are comparable only between equal ones.
pub(crate) fn compiler() -> &'static str {
    env!("DSM_RUSTC_VERSION")
}

/// A description under construction. Types add to it in [`Shared::describe`].
pub struct Shape {
    text: String,
    /// How many fields or variants the current line has, for the commas between them.
    fields: usize,
    /// The types mentioned so far, and what each is called here.
    known: HashMap<TypeId, String>,
    /// How many types have each name: without the modules, different ones may have the same.
    namesakes: BTreeMap<String, usize>,
    pending: VecDeque<Pending>,
}

/// A type that was mentioned, and is still to be described.
struct Pending {
    name: String,
    size: usize,
    align: usize,
    describe: fn(&mut Shape),
}

impl Shape {
    /// The type has a field of type `F` at `offset`.
    pub fn field<F: Shared>(&mut self, name: &str, offset: usize) {
        let kind = self.mention::<F>();
        self.part(format_args!("{name}: {kind} @{offset}"));
    }

    /// The type holds or reaches `F`, at a place that follows from what else is described.
    pub fn element<F: Shared>(&mut self, name: &str) {
        let kind = self.mention::<F>();
        self.part(format_args!("{name}: {kind}"));
    }

    /// The type has a variant; the elements up to the next one are its fields.
    pub fn variant(&mut self, name: &str, discriminant: String) {
        self.part(format_args!("{name} = {discriminant}"));
    }

    fn part(&mut self, part: std::fmt::Arguments<'_>) {
        let separator = if self.fields == 0 { " { " } else { ", " };
        self.fields += 1;
        // Writing to a string cannot fail; there is no error to pass on.
        let _ = write!(self.text, "{separator}{part}");
    }

    fn mention<F: Shared>(&mut self) -> String {
        let id = TypeId::of::<F>();
        if let Some(name) = self.known.get(&id) {
            return name.clone();
        }
        let name = self.name_apart(short_name(type_name::<F>()));
        self.known.insert(id, name.clone());
        self.pending.push_back(Pending {
            name: name.clone(),
            size: size_of::<F>(),
            align: align_of::<F>(),
            describe: F::describe,
        });
        name
    }

    /// `name`, with a number where another type has it already. Types are met in an order that follows from the
    /// description, so that the number is the same in every process.
    fn name_apart(&mut self, name: String) -> String {
        let namesakes = self.namesakes.entry(name.clone()).or_default();
        *namesakes += 1;
        if *namesakes == 1 { name } else { format!("{name}~{namesakes}") }
    }

    fn line(&mut self, next: &Pending) {
        self.fields = 0;
        // As above: a string takes everything.
        let _ = write!(self.text, "{} size {} align {}", next.name, next.size, next.align);
        (next.describe)(self);
        self.text.push_str(if self.fields == 0 { "\n" } else { " }\n" });
    }
}

/// A derived type that is not generic, for the comparison at join.
pub struct Registration {
    identity: fn() -> Identity,
}

impl Registration {
    /// Registers `T`.
    #[must_use]
    pub const fn of<T: Shared>() -> Registration {
        Registration { identity: identity::<T> }
    }
}

inventory::collect!(Registration);

/// What the derive macro refers to. Not for users.
pub mod __private {
    pub use super::{Identity, Registration, Shape};
    pub use inventory;

    /// Compiles only for plain types.
    pub fn assert_plain<T: super::Plain>() {}

    /// The layout of `T`, for tests outside this crate.
    #[must_use]
    pub fn identity<T: super::Shared>() -> Identity {
        super::identity::<T>()
    }

    /// The registered types, for tests outside this crate.
    #[must_use]
    pub fn registered() -> Vec<(String, u64)> {
        super::registered()
    }
}

/// `a::b::Pair<c::D>` without the modules: `Pair<D>`. Two programs may keep one type in different places.
fn short_name(path: &str) -> String {
    let mut name = String::with_capacity(path.len());
    // Where the path that is being read began in `name`.
    let mut start = 0;
    let mut characters = path.chars().peekable();
    while let Some(character) = characters.next() {
        if character == ':' && characters.peek() == Some(&':') {
            characters.next();
            name.truncate(start);
        } else {
            name.push(character);
            if !(character.is_alphanumeric() || character == '_') {
                start = name.len();
            }
        }
    }
    name
}

/// The hash of Fowler, Noll and Vo (FNV-1a, 64 bits): fixed, short, and good enough to tell layouts of honest builds
/// apart; it is no defence against a forger.
fn fnv1a(bytes: &[u8]) -> u64 {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0000_0100_0000_01b3;
    bytes.iter().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(PRIME))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{DsmMutex, DsmRef, collections::DsmList};
    use std::collections::HashSet;

    #[test]
    fn names_lose_their_modules_at_every_depth() {
        assert_eq!(short_name("u32"), "u32");
        assert_eq!(short_name("core::option::Option<a::b::C>"), "Option<C>");
        assert_eq!(short_name("(a::B, [c::d::E<f::G>; 3])"), "(B, [E<G>; 3])");
    }

    #[test]
    fn the_hash_is_the_published_one() {
        assert_eq!(fnv1a(b""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(fnv1a(b"a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(fnv1a(b"foobar"), 0x8594_4171_f739_67e8);
    }

    #[test]
    fn a_description_reaches_through_pointers() {
        let text = identity::<DsmMutex<DsmList<Option<DsmRef<u16>>>>>().text;
        assert!(text.starts_with("DsmMutex<DsmList<Option<DsmRef<u16>>>> size 8 align 8 { "), "{text}");
        assert!(text.contains("\nu16 size 2 align 2\n"), "{text}");
    }

    #[test]
    fn different_types_have_different_identities() {
        let hashes = [
            identity::<u32>().hash,
            identity::<i32>().hash,
            identity::<[u32; 1]>().hash,
            identity::<(u32,)>().hash,
            identity::<Option<u32>>().hash,
            identity::<DsmRef<u32>>().hash,
            identity::<DsmMutex<u32>>().hash,
            identity::<DsmMutex<u64>>().hash,
        ];
        let distinct: HashSet<u64> = hashes.into_iter().collect();
        assert_eq!(distinct.len(), hashes.len());
        assert_eq!(identity::<u32>(), identity::<u32>());
    }
}
