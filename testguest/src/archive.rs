//! The initramfs: a cpio archive in `newc` form, gzip around it.
//!
//! The same input gives the same bytes: no time, no owner and no inode number of the machine that builds it gets in.
//! The form is that of the kernel's `Documentation/driver-api/early-userspace/buffer-format.rst`.

use std::io::Write;

use flate2::{Compression, GzBuilder};

/// Why an initramfs cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// The init program would not start: it is no ELF program, or it needs a dynamic loader.
    #[error("init is {found}, a static ELF program is needed: build it with RUSTFLAGS='-C target-feature=+crt-static'")]
    Init {
        /// What it is.
        found: &'static str,
    },
    /// A module is not a plain ELF object.
    #[error("module {name} is not a plain ELF object: decompress it first (the init has no decompressor)")]
    Module {
        /// The file name of the module.
        name: String,
    },
    /// A module's name would not survive the list file.
    #[error("module name {name:?} must be a plain file name that ends in .ko")]
    Name {
        /// The name as given.
        name: String,
    },
    /// The archive's form cannot express a file of this size.
    #[error("{name} has {size} bytes, a cpio archive takes less than 4 GiB")]
    TooLarge {
        /// The path in the archive.
        name: String,
        /// Its size in bytes.
        size: usize,
    },
    /// The compressor failed.
    #[error("cannot compress the archive")]
    Compress {
        /// Its error.
        #[source]
        source: std::io::Error,
    },
}

/// A kernel module for the initramfs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Module {
    /// Its file name, such as `virtio_net.ko`.
    pub name: String,
    /// Its content, not compressed.
    pub bytes: Vec<u8>,
}

/// The folder of the modules in the initramfs.
pub const MODULES: &str = "/modules";

/// The file in the initramfs that names the modules, one per line, in the order in which to load them.
pub const MODULE_LIST: &str = "/modules/list";

const FOLDER: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// A `newc` archive under construction.
#[derive(Debug, Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    /// Add an entry. `device` is the major and minor number of a device node.
    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), content: &[u8]) -> Result<(), ArchiveError> {
        let size = u32::try_from(content.len())
            .map_err(|_| ArchiveError::TooLarge { name: path.to_owned(), size: content.len() })?;
        // The trailer's inode number is 0, everything else counts from 1.
        let inode = if path == "TRAILER!!!" { 0 } else { self.entries + 1 };
        self.entries += 1;
        let links = if mode & FOLDER == FOLDER { 2 } else { 1 };
        let name_size = path.len() as u32 + 1;
        // inode, mode, uid, gid, links, mtime, size, device of the file system (2), device (2), name size, checksum
        let fields = [inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The initramfs as a cpio archive: `init` as `/init`, the modules and their list, mount points and a console.
pub fn cpio(init: &[u8], modules: &[Module]) -> Result<Vec<u8>, ArchiveError> {
    check_init(init)?;
    let mut archive = Cpio::default();
    for folder in ["dev", "proc", "sys", "modules"] {
        archive.entry(folder, FOLDER | 0o755, (0, 0), &[])?;
    }
    // The kernel opens this one for init before init can mount anything.
    archive.entry("dev/console", CHARACTER_DEVICE | 0o600, (5, 1), &[])?;
    archive.entry("init", REGULAR | 0o755, (0, 0), init)?;
    let mut list = String::new();
    for module in modules {
        let plain = module.name.ends_with(".ko") && !module.name.contains(|c: char| c == '/' || c.is_whitespace());
        if !plain {
            return Err(ArchiveError::Name { name: module.name.clone() });
        }
        if !module.bytes.starts_with(b"\x7fELF") {
            return Err(ArchiveError::Module { name: module.name.clone() });
        }
        archive.entry(&format!("modules/{}", module.name), REGULAR | 0o644, (0, 0), &module.bytes)?;
        list.push_str(&module.name);
        list.push('\n');
    }
    archive.entry(MODULE_LIST.trim_start_matches('/'), REGULAR | 0o644, (0, 0), list.as_bytes())?;
    archive.entry("TRAILER!!!", 0, (0, 0), &[])?;
    Ok(archive.bytes)
}

/// The same, compressed: what QEMU's `-initrd` takes.
pub fn initramfs(init: &[u8], modules: &[Module]) -> Result<Vec<u8>, ArchiveError> {
    let cpio = cpio(init, modules)?;
    // No file name and no time in the header; 255 is "unknown" for the operating system.
    let mut encoder = GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), Compression::best());
    encoder.write_all(&cpio).map_err(|source| ArchiveError::Compress { source })?;
    encoder.finish().map_err(|source| ArchiveError::Compress { source })
}

/// Refuse an init that the kernel could not start: the initramfs has no dynamic loader.
fn check_init(init: &[u8]) -> Result<(), ArchiveError> {
    const PT_INTERP: u32 = 3;
    let not_elf = ArchiveError::Init { found: "no 64-bit ELF program" };
    let number = |at: usize, length: usize| -> Option<u64> {
        let bytes = init.get(at..at.checked_add(length)?)?;
        Some(bytes.iter().rev().fold(0, |value, byte| value << 8 | u64::from(*byte)))
    };
    // elf(5): e_ident says 64 bits, little endian; then e_phoff, e_phentsize, e_phnum.
    if !init.starts_with(b"\x7fELF\x02\x01") {
        return Err(not_elf);
    }
    let (Some(offset), Some(size), Some(count)) = (number(32, 8), number(54, 2), number(56, 2)) else {
        return Err(not_elf);
    };
    for index in 0..count {
        match number((offset + index * size) as usize, 4) {
            Some(kind) if kind == u64::from(PT_INTERP) => {
                return Err(ArchiveError::Init { found: "linked dynamically" });
            }
            Some(_) => {}
            None => return Err(ArchiveError::Init { found: "cut short" }),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An ELF header with program headers of these types.
    fn elf(headers: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = headers.len() as u8;
        for kind in headers {
            bytes.extend_from_slice(&kind.to_le_bytes());
            bytes.extend_from_slice(&[0; 52]);
        }
        bytes
    }

    fn module(name: &str) -> Module {
        Module { name: name.to_owned(), bytes: format!("\x7fELF of {name}").into_bytes() }
    }

    /// Path, mode, device, content.
    type Entry = (String, u32, (u32, u32), Vec<u8>);

    /// Read a `newc` archive.
    fn read(mut bytes: &[u8]) -> Vec<Entry> {
        let mut entries = Vec::new();
        loop {
            assert_eq!(&bytes[..6], b"070701");
            let field = |n: usize| {
                u32::from_str_radix(std::str::from_utf8(&bytes[6 + 8 * n..14 + 8 * n]).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let device = (field(9), field(10));
            let name = String::from_utf8(bytes[110..109 + name_size].to_vec()).unwrap();
            let start = (110 + name_size).next_multiple_of(4);
            let content = bytes[start..start + size].to_vec();
            bytes = &bytes[(start + size).next_multiple_of(4)..];
            if name == "TRAILER!!!" {
                assert!(bytes.is_empty());
                return entries;
            }
            entries.push((name, mode, device, content));
        }
    }

    #[test]
    fn archive_holds_what_the_guest_needs_in_an_order_that_unpacks() {
        let init = elf(&[1, 1]);
        let entries = read(&cpio(&init, &[module("b.ko"), module("a.ko")]).unwrap());
        let names: Vec<_> = entries.iter().map(|e| e.0.as_str()).collect();
        assert_eq!(
            names,
            ["dev", "proc", "sys", "modules", "dev/console", "init", "modules/b.ko", "modules/a.ko", "modules/list"]
        );
        assert_eq!(entries[4].1, 0o020_600);
        assert_eq!(entries[4].2, (5, 1));
        assert_eq!((entries[5].1, &entries[5].3), (0o100_755, &init));
        assert_eq!(entries[8].3, b"b.ko\na.ko\n");
    }

    #[test]
    fn first_header_is_exactly_newc() {
        let bytes = cpio(&elf(&[]), &[]).unwrap();
        let expected = concat!(
            "070701", "00000001", "000041ed", "00000000", "00000000", "00000002", "00000000", "00000000", "00000000",
            "00000000", "00000000", "00000000", "00000004", "00000000", "dev\0"
        );
        // 110 bytes of header and 4 of name are padded to 116.
        assert_eq!(&bytes[..114], expected.as_bytes());
        assert_eq!(&bytes[114..122], b"\0\x00070701");
    }

    #[test]
    fn same_input_same_bytes_and_gzip_gives_the_archive_back() {
        let (init, modules) = (elf(&[1]), [module("a.ko")]);
        let first = initramfs(&init, &modules).unwrap();
        assert_eq!(first, initramfs(&init, &modules).unwrap());
        // The gzip header: no flags, no time.
        assert_eq!(first[..8], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0]);
        let mut back = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&first[..]), &mut back).unwrap();
        assert_eq!(back, cpio(&init, &modules).unwrap());
    }

    #[test]
    fn what_would_not_boot_is_refused() {
        let refused = |init: &[u8], modules: &[Module]| cpio(init, modules).unwrap_err().to_string();
        assert!(refused(&elf(&[1, 3]), &[]).contains("linked dynamically"));
        assert!(refused(b"#!/bin/sh\n", &[]).contains("no 64-bit ELF program"));
        assert!(refused(&elf(&[1, 1])[..100], &[]).contains("cut short"));
        let compressed = Module { name: "a.ko".into(), bytes: b"\xfd7zXZ\0".to_vec() };
        assert!(refused(&elf(&[]), &[compressed]).contains("decompress it first"));
        for name in ["a.ko.xz", "../a.ko", "a b.ko", "a\n.ko"] {
            assert!(refused(&elf(&[]), &[module(name)]).contains("plain file name"), "{name:?} was accepted");
        }
    }
}
