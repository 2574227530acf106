//! Looking at the target while the experiment file is still being understood, which takes about as long.
//!
//! To look takes nothing but the name of the namespace, and that mostly stands plainly in the text. What was seen counts if
//! the file turns out to be of that name; otherwise, and where nobody listens, the caller looks as if nothing had been seen.
//! Looking changes nothing, so it does no harm that the file may be refused in the meantime.

use std::path::Path;
use std::thread::JoinHandle;

use crate::live::{self, Live, LiveError};
use crate::name::Namespace;
use crate::spec::File;
use crate::wire::Client;

/// A look that was begun.
#[derive(Debug)]
pub struct Ahead {
    namespace: Namespace,
    look: JoinHandle<Option<Seen>>,
}

type Seen = Result<(Live, Client), LiveError>;

impl Ahead {
    /// Begin to look at what a file seems to be of. None where that does not stand plainly in it, or there is no thread.
    pub fn begin(socket: &Path, file: &File) -> Option<Self> {
        let namespace = file.plain_name()?;
        let (socket, of) = (socket.to_owned(), namespace.clone());
        let look = std::thread::Builder::new().name("look".to_owned()).spawn(move || {
            let mut client = Client::connect(&socket, None).ok()?;
            Some(live::observe(&mut client, &of).map(|live| (live, client)))
        });
        Some(Self { namespace, look: look.ok()? })
    }

    /// What was seen, if it is of this namespace. Waits until everything was seen.
    pub fn seen(self, namespace: &Namespace) -> Option<Seen> {
        (self.namespace == *namespace).then(|| self.look.join().ok().flatten()).flatten()
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    use super::*;
    use crate::spec::{Folder, Format};

    fn file(text: &str) -> File {
        File { name: "lab.yaml".into(), text: text.into(), format: Format::Yaml, folder: Folder::new(Path::new("")) }
    }

    #[test]
    fn what_was_seen_counts_for_its_namespace_alone() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("minimega");
        let (lab, other) = (Namespace::new("lab").unwrap(), Namespace::new("other").unwrap());
        let begin = |text: &str| Ahead::begin(&socket, &file(text));
        assert!(begin("experiment: lab").unwrap().seen(&lab).is_none(), "nobody listens");
        assert!(begin("experiment: \"{{ var.name }}\"").is_none());
        let listener = UnixListener::bind(&socket).unwrap();
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let mut stream = stream.unwrap();
                // There are no namespaces, so nothing else is asked.
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                assert_eq!(line, "{\"Command\":\"namespace\"}\n");
                stream.write_all(b"{\"Resp\":[{\"Host\":\"h\",\"Header\":[\"namespace\"],\"Tabular\":[]}]}\n").unwrap();
            }
        });
        assert!(begin("experiment: lab").unwrap().seen(&other).is_none());
        let (live, _) = begin("experiment: lab").unwrap().seen(&lab).unwrap().unwrap();
        assert!(!live.present);
        assert_eq!(live.placement.own, "h");
    }
}
