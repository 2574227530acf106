//! The settings of a mesh. This engine is alone: it keeps them and shows them, and has no peer that they would matter to.

use std::sync::MutexGuard;
use std::time::Duration;

use super::Engine;

/// The most peers that can be asked for.
const DEGREES: u32 = 65_535;

/// The settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mesh {
    /// How many peers are to be looked for.
    pub degree: u32,
    /// How long the answer of another host is waited for; None without end.
    pub timeout: Option<Duration>,
}

/// Why a setting was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MeshError {
    /// Not a number of peers.
    #[error("invalid degree `{text}`, expected a whole number of peers from 0 to {DEGREES}")]
    Degree {
        /// As given.
        text: String,
    },
    /// Not a number of seconds.
    #[error("invalid timeout `{text}`, expected a whole number of seconds, 0 for no limit")]
    Timeout {
        /// As given.
        text: String,
    },
}

impl Mesh {
    /// Set the degree.
    pub fn set_degree(&mut self, text: &str) -> Result<(), MeshError> {
        let degree = text.parse().ok().filter(|degree| *degree <= DEGREES);
        self.degree = degree.ok_or_else(|| MeshError::Degree { text: text.to_owned() })?;
        Ok(())
    }

    /// Set the timeout, in seconds; 0 is none.
    pub fn set_timeout(&mut self, text: &str) -> Result<(), MeshError> {
        let seconds = text.parse::<u32>().map_err(|_| MeshError::Timeout { text: text.to_owned() })?;
        self.timeout = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        Ok(())
    }
}

impl Engine {
    /// The settings of the mesh. Never held across an await.
    pub fn mesh(&self) -> MutexGuard<'_, Mesh> {
        self.mesh.lock().expect("no code panics while it holds the settings of the mesh")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_kept_or_refused() {
        let mut mesh = Mesh::default();
        mesh.set_degree("3").unwrap();
        mesh.set_timeout("90").unwrap();
        assert_eq!(mesh, Mesh { degree: 3, timeout: Some(Duration::from_secs(90)) });
        assert!(mesh.set_degree("-1").unwrap_err().to_string().contains("`-1`, expected a whole number of peers"));
        assert!(mesh.set_degree("65536").is_err());
        assert!(mesh.set_timeout("10s").unwrap_err().to_string().contains("`10s`, expected a whole number of seconds"));
        assert_eq!(mesh.degree, 3);
        mesh.set_timeout("0").unwrap();
        assert_eq!(mesh.timeout, None);
    }
}
