//! The diskspec of `vm config disks`: `path[,interface][,cache]`, parsed and printed back.

use std::fmt;

/// Disk interfaces that QEMU's `-drive if=` takes, and the controllers that megaform maps to devices.
pub const INTERFACES: &[&str] = &["ahci", "floppy", "ide", "mtd", "none", "pflash", "scsi", "sd", "virtio"];

/// Cache modes of QEMU's `-drive cache=`.
pub const CACHES: &[&str] = &["directsync", "none", "unsafe", "writeback", "writethrough"];

/// The interface of a disk whose diskspec names none.
pub const DEFAULT_INTERFACE: &str = "ide";

/// One disk as a diskspec describes it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DiskSpec {
    /// The image; a relative path is relative to the engine's files folder.
    pub path: String,
    /// One of [`INTERFACES`], None for the default one.
    pub interface: Option<String>,
    /// One of [`CACHES`], None for QEMU's own choice.
    pub cache: Option<String>,
}

/// Why a text is not a diskspec.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("malformed diskspec `{text}`, expected path[,interface][,cache] with interface one of {} and cache one of {}", INTERFACES.join(" "), CACHES.join(" "))]
pub struct DiskSpecError {
    /// The text as given.
    pub text: String,
}

impl DiskSpec {
    /// Parse one diskspec. A part that is neither an interface nor a cache mode is an error, not a path.
    pub fn parse(text: &str) -> Result<Self, DiskSpecError> {
        let error = || DiskSpecError { text: text.to_owned() };
        let mut parts = text.split(',');
        let path = parts.next().filter(|p| !p.is_empty()).ok_or_else(error)?;
        let mut spec = Self { path: path.to_owned(), interface: None, cache: None };
        for part in parts {
            // `none` is both; the first unnamed slot that accepts it takes it.
            if spec.interface.is_none() && spec.cache.is_none() && INTERFACES.contains(&part) {
                spec.interface = Some(part.to_owned());
            } else if spec.cache.is_none() && CACHES.contains(&part) {
                spec.cache = Some(part.to_owned());
            } else {
                return Err(error());
            }
        }
        Ok(spec)
    }
}

impl fmt::Display for DiskSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.path)?;
        if let Some(interface) = &self.interface {
            write!(f, ",{interface}")?;
        }
        if let Some(cache) = &self.cache {
            write!(f, ",{cache}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        for text in ["/a/b.qcow2", "a.img,virtio", "a.img,writeback", "a.img,ide,none", "a.img,none,none"] {
            assert_eq!(DiskSpec::parse(text).unwrap().to_string(), text);
        }
        for text in ["", ",ide", "a,bogus", "a,ide,ide", "a,writeback,ide", "a,ide,none,x"] {
            assert!(DiskSpec::parse(text).is_err(), "{text}");
        }
    }
}
