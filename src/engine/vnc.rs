//! A TCP port on the loopback address for a VM's display, which QEMU offers on a UNIX socket.

use std::path::PathBuf;

use tokio::io::copy_bidirectional;
use tokio::net::TcpListener;

use crate::qmp;

/// An open port; it closes when this is dropped.
pub struct Shim {
    /// The port.
    pub port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Shim {
    /// Open a port for the display socket in a VM's folder.
    pub async fn open(socket: PathBuf) -> std::io::Result<Self> {
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let task = tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let socket = socket.clone();
                tokio::spawn(async move {
                    // Either side may hang up at any time; there is nobody to tell.
                    if let Ok(mut display) = qmp::connect_socket(&socket).await {
                        let _ = copy_bidirectional(&mut client, &mut display).await;
                    }
                });
            }
        });
        Ok(Self { port, task })
    }
}

impl Drop for Shim {
    fn drop(&mut self) {
        self.task.abort();
    }
}
