//! Names with ranges: `web[0-2]`, `a[0-1,5]`, and what `count` makes of a name.

use crate::language::range;

/// How many VMs one experiment may have.
pub const MAX_VMS: usize = 100_000;

/// The names that a name with ranges stands for, in order; a name without brackets is itself.
pub fn expand_names(text: &str) -> Result<Vec<String>, String> {
    range::expand(text).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_expand_in_order() {
        assert_eq!(expand_names("web").unwrap(), ["web"]);
        assert_eq!(expand_names("web[0-2]").unwrap(), ["web0", "web1", "web2"]);
        assert_eq!(expand_names("a[0-1,5]").unwrap(), ["a0", "a1", "a5"]);
        for bad in ["a[", "a]", "a[]", "a[x]", "a[0-99999999999]", "a[0-999][0-999]"] {
            assert!(expand_names(bad).is_err(), "{bad}");
        }
    }
}
