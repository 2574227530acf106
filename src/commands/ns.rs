//! `ns`: the hosts of a namespace, its queue of launches and how they are scheduled.

use crate::engine::{Engine, EngineError, Load, Queued, Schedule};
use crate::language::declaration::Declaration;
use crate::language::range;
use crate::name::{Namespace, VmName};

use super::{Answer, Builtin, Call, Command, Run, vm_config};

/// The columns of `ns schedule status`.
const STATUS: &[&str] = &["start", "end", "state", "launched", "failures", "total", "hosts"];

/// The columns of `ns schedule dry-run` and `dump`.
const PLACES: &[&str] = &["vm", "dst"];

/// What is queued, as text: one part for each launch.
fn queue(queue: &[Queued]) -> String {
    let part = |queued: &Queued| {
        let (count, names) = (queued.names.len(), range::compress(&queued.names));
        // There are no other VMs in this engine.
        format!("VMs: {count}\nNames: {names}\nVM Type: kvm\n\n{}\n\n", vm_config::table(&queued.config))
    };
    queue.iter().map(part).collect()
}

fn places(places: Vec<(VmName, String)>) -> Answer {
    Answer::table(PLACES, places.into_iter().map(|(vm, host)| vec![vm.to_string(), host]).collect())
}

fn status(schedules: Vec<Schedule>) -> Answer {
    let time = |time| humantime::format_rfc3339_seconds(time).to_string();
    let row = |schedule: Schedule| {
        vec![
            time(schedule.start),
            schedule.end.map(time).unwrap_or_default(),
            if schedule.end.is_some() { "completed" } else { "running" }.to_owned(),
            schedule.launched.to_string(),
            schedule.failures.to_string(),
            schedule.total.to_string(),
            schedule.hosts.to_string(),
        ]
    };
    Answer::table(STATUS, schedules.into_iter().map(row).collect())
}

async fn schedule(call: &Call) -> Result<Answer, EngineError> {
    let (engine, namespace) = (call.engine(), &call.namespace);
    if call.args.flag("dry-run") {
        return Ok(places(engine.dry_run(namespace)?));
    }
    if call.args.flag("dump") {
        return Ok(places(engine.dumped(namespace)?));
    }
    if call.args.flag("mv") {
        engine.move_queued(namespace, call.required("vm target"), call.required("dst"))?;
        return Ok(Answer::done());
    }
    if call.args.flag("status") {
        return Ok(status(engine.schedules(namespace)));
    }
    engine.launch_queue(namespace).await?;
    Ok(Answer::done())
}

fn change(call: &Call, engine: &Engine, namespace: &Namespace) -> Result<Answer, EngineError> {
    let hosts = || call.required("hostname or range or all");
    if call.args.flag("hosts") {
        return Ok(Answer::text(range::compress(&engine.hosts(namespace))));
    }
    if call.args.flag("queue") {
        return Ok(Answer::text(queue(&engine.queue(namespace))));
    }
    if call.args.flag("schedules") {
        return Ok(status(engine.schedules(namespace)));
    }
    if call.args.flag("add-hosts") {
        engine.add_hosts(namespace, hosts())?;
    } else if call.args.flag("del-hosts") {
        engine.del_hosts(namespace, hosts())?;
    } else if call.args.flag("flush") {
        engine.flush_queue(namespace)?;
    } else if call.args.flag("load") {
        match Load::ALL.into_iter().find(|load| call.args.flag(load.word())) {
            Some(load) => engine.set_load(namespace, load)?,
            None => return Ok(Answer::text(engine.load(namespace).word())),
        }
    } else {
        match call.args.choice("true,false") {
            Some(on) => engine.set_queueing(namespace, on == "true")?,
            None => return Ok(Answer::text(engine.queueing(namespace).to_string())),
        }
    }
    Ok(Answer::done())
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new(
                "ns",
                &[
                    "ns <hosts,>",
                    "ns <add-hosts,> <hostname or range or all>",
                    "ns <del-hosts,> <hostname or range or all>",
                    "ns <load,>",
                    "ns <load,> <cpucommit,>",
                    "ns <load,> <netcommit,>",
                    "ns <load,> <memcommit,>",
                    "ns <queue,>",
                    "ns <flush,>",
                    "ns <queueing,> [true,false]",
                    "ns <schedule,>",
                    "ns <schedule,> <dry-run,>",
                    "ns <schedule,> <dump,>",
                    "ns <schedule,> <mv,> <vm target> <dst>",
                    "ns <schedule,> <status,>",
                    "ns <schedules,>",
                ],
                "the namespace's hosts, its queue of launches and how they are scheduled",
                "hosts: shows the hosts of the namespace.\n\
                 add-hosts, del-hosts: put hosts into the namespace or take them out. This engine knows its own host only, \
                 also as `localhost` and `all`; a namespace without a host launches nothing. A host with VMs of the namespace \
                 is not taken out.\n\
                 load: shows or sets the figure by which the least loaded host is chosen: cpucommit (virtual CPUs by \
                 processors, the default), netcommit (NICs), memcommit (memory of VMs by memory). It chooses between hosts \
                 and limits nothing; with one host there is nothing to choose.\n\
                 queueing: shows or sets whether `vm launch` with names only queues. Default: false. What is queued stays \
                 queued when it is set to false.\n\
                 queue: shows each queued launch with the configuration that it was queued with.\n\
                 flush: drops the queue.\n\
                 schedule: launches the queue, as `vm launch` without arguments does. With dry-run, shows where each VM would \
                 go and launches nothing; dump shows that again; mv sends queued VMs elsewhere; the next launch of the same \
                 queue follows it. With status, and as `ns schedules`, lists this daemon's launches in the namespace.\n\n\
                 \x20   ns queueing true\n    vm launch kvm web[0-9]\n    ns schedule dry-run\n    vm launch\n\n\
                 A VM goes to the host that `vm config schedule` names and to that of the VM that `vm config colocate` names; \
                 `vm config coschedule` limits how many other VMs, of any namespace, its host may have. What cannot be met is \
                 an error: nothing is launched and the queue stays.",
            )
            .local(),
            |call| async move {
                if call.args.flag("schedule") {
                    return schedule(&call).await;
                }
                change(&call, call.engine(), &call.namespace)
            },
        ),
        Command {
            declaration: Declaration::new(
                "ns run",
                &["ns <run,> (command)"],
                "run a command on the hosts of the namespace",
                "Runs a command on every host of the namespace: on this one, as this engine knows no other. Without a host, \
                 nothing answers. `read`, `ns run` and `mesh send` cannot be run so.\n\n    ns run host",
            )
            .local(),
            run: Run::Builtin(Builtin::NsRun),
        },
    ]
}
