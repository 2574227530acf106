//! From a refusal of the kernel to a [`NetworkError`] that says what was tried and what is missing.

use std::io;

use nix::libc;

use super::namespace::lacks_privilege;
use crate::host::NetworkError;

/// The kernel refused to do `what`, such as `create bridge b.1`.
pub(super) fn kernel(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetworkError {
    let what = what.into();
    move |source| match source.raw_os_error() {
        Some(libc::EPERM) => lacks_privilege(&what),
        _ => NetworkError::Kernel { what, source },
    }
}

/// As [`kernel`], where the kernel may have been built without the feature.
pub(super) fn refused(
    what: String,
    feature: &'static str,
    option: &'static str,
) -> impl FnOnce(io::Error) -> NetworkError {
    move |source| match source.raw_os_error() {
        Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT | libc::ENODEV) => {
            NetworkError::Unsupported { what: feature.to_owned(), missing: format!("the kernel option {option}") }
        }
        _ => kernel(what)(source),
    }
}
