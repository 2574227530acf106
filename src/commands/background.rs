//! `background`, `background-status`, `background-output`, `background-error`, `clear background-status`

use std::time::{SystemTime, UNIX_EPOCH};

use crate::engine::BackgroundOutput;
use crate::language::declaration::Declaration;

use super::{Answer, Command};

const COLUMNS: &[&str] = &["ID", "PID", "RUNNING", "ERROR", "TIME_START", "TIME_END", "COMMAND"];

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// `Nov 22 13:02:19 UTC`
fn time(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // The Gregorian calendar repeats every 146,097 days (400 years); years are taken to begin on 1 March, so that a leap
    // day is the last of its year. 719,468 days are from there to 1970.
    let day = (days + 719_468) % 146_097;
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let name = MONTHS[usize::try_from((month + 2) % 12).expect("less than 12")];
    format!("{name} {day:02} {:02}:{:02}:{:02} UTC", rest / 3600, rest / 60 % 60, rest % 60)
}

fn output(
    name: &'static str,
    patterns: &[&'static str],
    short: &'static str,
    long: &'static str,
    which: BackgroundOutput,
) -> Command {
    Command::new(Declaration::new(name, patterns, short, long).local(), move |call| async move {
        Ok(Answer::text(call.engine().background_output(call.required("id"), which)?))
    })
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command::new(
            Declaration::new("background", &["background <command>..."], "start a program on the engine's host",
                "Starts a program like `shell`, with the daemon's rights and in the engine's network namespace, and answers at \
                 once with its id. The words are its arguments as they are. Its standard input is empty. It ends with the \
                 daemon: SIGTERM to its process group, SIGKILL after 2 s. To end it earlier, `shell kill PID`.\n\n\
                 \x20   background tcpdump -i mega_tap0 -w /tmp/lab.pcap")
                .local(),
            |call| async move {
                let id = call.engine().start_background(call.args.list("command")).await?;
                Ok(Answer::text(format!("Started background process with id {id}")))
            },
        ),
        Command::new(
            Declaration::new("background-status", &["background-status [id]"], "show background processes",
                "Shows all background processes, or one. A process runs until it has ended and whatever it started has closed \
                 its outputs. ERROR says how it failed (`exit status 1`, `signal: killed`); it is empty after success. Of \
                 processes that have ended, the 1000 newest are kept.")
                .local()
                .columns(COLUMNS),
            |call| async move {
                let rows = call
                    .engine()
                    .background(call.args.str("id"))?
                    .into_iter()
                    .map(|info| {
                        vec![
                            info.id.to_string(),
                            info.pid.to_string(),
                            info.ended.is_none().to_string(),
                            info.error,
                            time(info.started),
                            info.ended.map(time).unwrap_or_default(),
                            info.command,
                        ]
                    })
                    .collect();
                Ok(Answer::table(COLUMNS, rows))
            },
        ),
        output("background-output", &["background-output <id>"], "show what a background process wrote",
            "Shows its standard output, also while it runs: the newest 1 MiB. If there was more, the first line says how much is \
             missing. All processes that have ended keep 64 MiB together; the oldest lose theirs first.",
            BackgroundOutput::Output),
        output("background-error", &["background-error <id>"], "show what a background process wrote on standard error",
            "Shows its standard error, also while it runs: the newest 1 MiB, as `background-output` does.",
            BackgroundOutput::Error),
        Command::new(
            Declaration::new("clear background-status", &["clear background-status"],
                "forget background processes that have ended",
                "Forgets the processes that have ended, and their outputs. Those that run are neither ended nor forgotten. Ids are \
                 not used again.")
                .local(),
            |call| async move {
                call.engine().forget_background();
                Ok(Answer::done())
            },
        ),
    ]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn times_are_calendar_times() {
        let at = |seconds| time(UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(at(0), "Jan 01 00:00:00 UTC");
        assert_eq!(at(951_782_400), "Feb 29 00:00:00 UTC");
        assert_eq!(at(1_795_352_539), "Nov 22 13:02:19 UTC");
        assert_eq!(at(4_107_542_399), "Feb 28 23:59:59 UTC");
        assert_eq!(at(4_107_542_400), "Mar 01 00:00:00 UTC");
    }
}
