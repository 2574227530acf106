//! `qos` and `clear qos`

use crate::engine::{EngineError, Qos};
use crate::language::declaration::Declaration;
use crate::name::{Shape, ShapeError};

use super::{Answer, Call, Command};

const SET: &str = "qos <set,> <vm target> <interface> <setting>...";

/// What the words ask for.
fn parse(call: &Call) -> Result<Qos, ShapeError> {
    if call.args.flag("set") {
        return Shape::parse(call.args.list("setting")).map(Qos::Set);
    }
    if let Some(percent) = call.args.str("percent") {
        return percent.parse().map(Qos::Loss);
    }
    if let Some(duration) = call.args.str("duration") {
        return duration.parse().map(Qos::Delay);
    }
    let unit = ["kbit", "mbit", "gbit"].into_iter().find(|unit| call.args.flag(unit)).unwrap_or_default();
    format!("{}{unit}", call.required("bw")).parse().map(Qos::Rate)
}

async fn qos(call: Call) -> Result<Answer, EngineError> {
    let qos = parse(&call)?;
    call.engine().add_qos(&call.namespace, call.required("vm target"), call.required("interface"), qos).await?;
    Ok(Answer::done())
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new(
                "qos",
                &[
                    "qos <add,> <vm target> <interface> <loss,> <percent>",
                    "qos <add,> <vm target> <interface> <delay,> <duration>",
                    "qos <add,> <vm target> <interface> <rate,> <bw> <kbit,mbit,gbit>",
                    SET,
                ],
                "limit, delay or lose what goes to a NIC",
                "Shapes the traffic toward a NIC of VMs, for instance to emulate a slow or bad line. What the VM sends is not \
                 shaped there: for both directions of a link, shape the NICs at both its ends. NICs are counted from 0, in \
                 the order of `vm info`, which shows what is set in the column qos.\n\n\
                 add loss: loses that percentage of frames at random, at most 99.9.\n\
                 add delay: holds every frame up for a duration such as 100ms or 1.5s.\n\
                 add rate: lets at most so many bits per second pass; a kbit is 1000 bits.\n\
                 Loss and delay of a NIC go together, but rate takes the place of both, and each of them takes the place of \
                 rate.\n\n\
                 set: sets rate, delay, jitter and loss in any combination, and nothing else stays. Frames are held up by \
                 the delay plus or minus the jitter. This form is megaform's own.\n\n\
                 qos belongs to the NIC: it moves with `vm net connect`, and is there again when the VM is started anew. \
                 Delay, jitter and loss need netem in the kernel; `check` says whether it is there. With several VMs, \
                 all are changed or none is.\n\n\
                     \x20   qos add web[0-2] 0 loss 0.25\n    qos add all 1 rate 10 mbit\n\
                     \x20   qos set web0 0 rate=10mbit delay=20ms jitter=5ms loss=0.1",
            )
            .own_pattern(SET),
            qos,
        ),
        Command::new(
            Declaration::new(
                "clear qos",
                &["clear qos <vm target> [tap index]"],
                "let everything pass to a NIC again",
                "Takes off what `qos` has set: of the NIC with that number, of all NICs of the VMs without a number or with \
                 `all`.\n\n    clear qos web0 1\n    clear qos all",
            ),
            |call| async move {
                call.engine()
                    .clear_qos(&call.namespace, call.required("vm target"), call.args.str("tap index"))
                    .await?;
                Ok(Answer::done())
            },
        ),
    ]
}
