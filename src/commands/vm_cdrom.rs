//! `vm cdrom`

use crate::language::declaration::{Completion, Declaration};

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![Command::new(
        Declaration::new(
            "vm cdrom",
            &["vm cdrom <eject,> <vm target> [force,]", "vm cdrom <change,> <vm target> <path> [force,]"],
            "change what is in the CD-ROM drive",
            "Puts another image into the CD-ROM drive of running, paused or building VMs, or takes out what is in it; an \
             empty drive is fine. An image that is in the drive is ejected for another one. A relative path is relative to \
             the files folder. A path that cannot be read is an error before anything is ejected.\n\n\
             A guest that has locked the drive (a mounted disc) is asked to open it, and the command fails; with force the \
             image is taken out all the same. `vm info` shows the image in the drive. It stays there for a VM that ends and \
             is started again; the boot order stays that of the launch. VMs that have ended are an error where they are \
             named; `all` leaves them out.\n\n\
             \x20   vm cdrom change web0 debian.iso\n    vm cdrom eject all",
        )
        .complete("path", Completion::Path),
        |call| async move {
            let image = call.args.flag("change").then(|| call.required("path"));
            let (target, force) = (call.required("vm target"), call.args.flag("force"));
            call.engine().change_cdrom(&call.namespace, target, image, force).await?;
            Ok(Answer::done())
        },
    )]
}
