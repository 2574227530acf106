//! A client that has joined a named pipe: what it sends is written, what the pipe delivers is sent.

use crate::wire::{PipeInput, PipeOutput};

use super::dispatch::Dispatcher;

impl Dispatcher {
    /// Serve a client until it has left, or the pipe is gone. One that says that it sends nothing more still gets what
    /// waits for it.
    pub(super) async fn join_pipe(&self, name: &str, mut input: PipeInput, mut output: PipeOutput) {
        let (mut reader, writer) = match self.shared.engine.open_pipe(name) {
            Ok(ends) => ends,
            Err(error) => return output.refuse(&self.failure(error.chain())).await,
        };
        let end = reader.end();
        let write = async {
            while let Some(message) = input.next().await {
                if writer.write(message.as_bytes()).await.is_err() {
                    break;
                }
            }
            end.close();
        };
        let send = async {
            while let Some(message) = reader.recv().await {
                if !output.send(&format!("{}\n", String::from_utf8_lossy(&message))).await {
                    break;
                }
            }
        };
        tokio::pin!(send);
        tokio::select! {
            () = &mut send => return,
            () = write => {}
        }
        send.await;
    }
}
