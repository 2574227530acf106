//! Names of pipes: `NAMESPACE//NAME`.

use std::fmt;

use crate::name::Namespace;

use super::PlumbError;

/// Between the namespace and the name.
const SEPARATOR: &str = "//";

/// The longest name, in bytes, its namespace included.
pub const MAX_NAME: usize = 1 << 10;

/// The whole name of a pipe.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PipeName(String);

impl PipeName {
    /// A name as a command of a namespace gives it. One that begins with a namespace and `//` is whole already.
    pub fn within(namespace: &Namespace, name: &str) -> Result<Self, PlumbError> {
        match is_whole(name) || name.is_empty() {
            true => Self::whole(name),
            false => Self::whole(&format!("{namespace}{SEPARATOR}{name}")),
        }
    }

    /// A name that is used as it is: any text without control characters.
    pub fn whole(name: &str) -> Result<Self, PlumbError> {
        if name.is_empty() || name.len() > MAX_NAME || name.chars().any(char::is_control) {
            return Err(PlumbError::Name { name: name.chars().take(80).collect() });
        }
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Does it belong to a namespace? One without a namespace in it (made over the socket) belongs to the default one.
    pub fn belongs_to(&self, namespace: &Namespace) -> bool {
        match self.0.split_once(SEPARATOR) {
            Some((of, _)) if is_whole(&self.0) => of == namespace.as_str(),
            _ => *namespace == Namespace::default_namespace(),
        }
    }

    /// The name as commands of its namespace may give it.
    pub fn short(&self) -> &str {
        self.0.split_once(SEPARATOR).map_or(&self.0, |(_, name)| name)
    }
}

/// Does a name begin with a namespace and `//`?
pub(super) fn is_whole(name: &str) -> bool {
    name.split_once(SEPARATOR).is_some_and(|(namespace, _)| Namespace::new(namespace).is_ok())
}

impl fmt::Display for PipeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_gets_its_namespace_unless_it_has_one() {
        let lab = Namespace::new("lab").unwrap();
        let default = Namespace::default_namespace();
        let name = |text: &str| PipeName::within(&lab, text).unwrap();
        assert_eq!(name("a").as_str(), "lab//a");
        assert_eq!(name("minimega//a").as_str(), "minimega//a");
        assert_eq!(name("http://x").as_str(), "lab//http://x");
        assert_eq!(name("ü \"x\"/ 'y'").as_str(), "lab//ü \"x\"/ 'y'");
        assert!(name("a").belongs_to(&lab) && !name("a").belongs_to(&default));
        assert!(name("http://x").belongs_to(&lab));
        assert!(name("minimega//a").belongs_to(&default));
        let plain = PipeName::whole("plain").unwrap();
        assert!(plain.belongs_to(&default) && !plain.belongs_to(&lab));
        for wrong in ["", "a\nb", &"x".repeat(MAX_NAME + 1)] {
            assert!(PipeName::within(&lab, wrong).is_err());
        }
    }
}
