//! `vm cdrom change` and `vm cdrom eject`

use crate::language::declaration::{Completion, Declaration};

use super::{Answer, Command};

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new(
                "vm cdrom change",
                &["vm cdrom <change,> <vm target> <path> [force,]"],
                "put another image into the CD-ROM drive",
                "Puts an image into the CD-ROM drive of running, paused or building VMs; what is in it is ejected. A relative \
                 path is relative to the files folder. A path that cannot be read is an error before anything is ejected.\n\n\
                 A guest that has locked the drive (a mounted disc) is asked to open it, and the command fails; with force \
                 the image is changed all the same. `vm info` shows the image in the drive. It stays there for a VM that \
                 ends and is started again; the boot order stays that of the launch.\n\n\
                 \x20   vm cdrom change web0 debian.iso",
            )
            .complete("path", Completion::Path),
            |call| async move {
                let (target, force) = (call.required("vm target"), call.args.flag("force"));
                call.engine().change_cdrom(&call.namespace, target, Some(call.required("path")), force).await?;
                Ok(Answer::done())
            },
        ),
        Command::new(
            Declaration::new(
                "vm cdrom eject",
                &["vm cdrom <eject,> <vm target> [force,]"],
                "empty the CD-ROM drive",
                "Ejects what is in the CD-ROM drive of running, paused or building VMs; an empty drive is fine. A guest that \
                 has locked the drive (a mounted disc) is asked to open it, and the command fails; with force the image is \
                 taken out all the same.\n\n    vm cdrom eject all",
            ),
            |call| async move {
                let (target, force) = (call.required("vm target"), call.args.flag("force"));
                call.engine().change_cdrom(&call.namespace, target, None, force).await?;
                Ok(Answer::done())
            },
        ),
    ]
}
