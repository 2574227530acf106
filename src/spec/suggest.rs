//! "Did you mean": the nearest of a list of names.

/// Suggests names, within a budget of comparisons so that a file with thousands of mistakes stays quick.
pub struct Suggester {
    comparisons: usize,
}

/// Names longer than this are compared with nothing.
const MAX_LENGTH: usize = 64;

impl Default for Suggester {
    fn default() -> Self {
        Self { comparisons: 200_000 }
    }
}

impl Suggester {
    /// The nearest name, if it is near enough to be a slip of the hand.
    pub fn nearest<'n>(&mut self, name: &str, names: impl IntoIterator<Item = &'n str>) -> Option<&'n str> {
        if name.len() > MAX_LENGTH {
            return None;
        }
        let length = name.chars().count();
        let allowed = (length / 3).max(1);
        let lower = name.to_lowercase();
        let mut best: Option<(usize, &str)> = None;
        // The beginning of a longer name, such as `virtio` of `virtio-net-pci`.
        let mut longer: Option<&str> = None;
        for candidate in names {
            if self.comparisons == 0 {
                break;
            }
            self.comparisons -= 1;
            if length >= 3 && candidate.starts_with(name) && candidate != name {
                longer = longer.filter(|l| l.len() <= candidate.len()).or(Some(candidate));
            }
            if candidate.len().abs_diff(name.len()) > allowed + 3 || candidate == name {
                continue;
            }
            let distance = strsim::osa_distance(&lower, &candidate.to_lowercase());
            if distance <= allowed && best.is_none_or(|(d, b)| (distance, candidate) < (d, b)) {
                best = Some((distance, candidate));
            }
        }
        best.map(|(_, name)| name).or(longer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_found_and_strangers_are_not() {
        let names = ["memory", "vcpus", "networks", "serial_ports"];
        let mut suggester = Suggester::default();
        assert_eq!(suggester.nearest("memroy", names), Some("memory"));
        assert_eq!(suggester.nearest("Memory", names), Some("memory"));
        assert_eq!(suggester.nearest("network", names), Some("networks"));
        assert_eq!(suggester.nearest("serial_port", names), Some("serial_ports"));
        assert_eq!(suggester.nearest("serial", names), Some("serial_ports"));
        assert_eq!(suggester.nearest("hostname", names), None);
        assert_eq!(suggester.nearest("", names), None);
    }
}
