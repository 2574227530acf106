//! Builtins: commands that change how answers are selected and shown, for one nested command or from now on; and
//! `namespace`, which nests too and has its own file for its table.

use crate::language::declaration::{Completion, Declaration};

use super::{Command, Run};

/// What the dispatcher itself carries out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Builtin {
    /// `.columns`
    Columns,
    /// `.filter`
    Filter,
    /// A switch of the output mode, by the command's name.
    Switch,
    /// `.record`
    Record,
    /// `namespace`
    Namespace,
    /// `.alias`
    Alias,
    /// `.unalias`
    Unalias,
    /// `.env`
    Env,
    /// `.preprocess`
    Preprocess,
    /// `read`
    Read,
    /// `ns run`
    NsRun,
    /// `mesh send`
    MeshSend,
    /// `clear all`
    ClearAll,
}

fn switch(name: &'static str, patterns: &[&'static str], short: &'static str, long: &'static str) -> Command {
    let run = Run::Builtin(if name == ".record" { Builtin::Record } else { Builtin::Switch });
    Command { declaration: Declaration::new(name, patterns, short, long).local(), run }
}

pub(super) fn commands() -> Vec<Command> {
    vec![
        Command {
            declaration: Declaration::new(
                ".alias",
                &[".alias", ".alias <alias>..."],
                "show or define aliases",
                "`.alias NAME=COMMAND` lets NAME, one word, stand for a command, or the beginning of one, where it is the \
                 first word of a line. Only one alias is expanded per line. Without arguments, lists the aliases.\n\n\
                 \x20   .alias vmr=.filter state=running vm info",
            )
            .local()
            .columns(&["alias", "expansion"]),
            run: Run::Builtin(Builtin::Alias),
        },
        Command {
            declaration: Declaration::new(
                ".unalias",
                &[".unalias <alias>"],
                "remove an alias",
                "Removes an alias by its name. One that does not exist is an error.",
            )
            .local(),
            run: Run::Builtin(Builtin::Unalias),
        },
        Command {
            declaration: Declaration::new(
                ".env",
                &[".env [name]", ".env <name> <value>"],
                "show or set variables",
                "Shows all variables, or one, or sets one; an empty value removes it. `$NAME` and `${NAME}` in any word of a \
                 command stand for the value, inside quotes too, unless `.preprocess false`. The variables are the daemon's \
                 environment at its start; programs that `shell` runs do not see changes.\n\n\
                 \x20   .env images /srv/images\n    vm config disks $images/web.qcow2",
            )
            .local(),
            run: Run::Builtin(Builtin::Env),
        },
        Command {
            declaration: Declaration::new(
                ".preprocess",
                &[".preprocess [true,false]", ".preprocess <true,false> (command)"],
                "show or set whether variables and files are expanded",
                "With true, the words of a command may stand for something else. Default: true.\n\n\
                 `$NAME` and `${NAME}` anywhere in a word: a variable (`.env`).\n\
                 `file:NAME`: the path of NAME in the engine's files folder, whether or not it is there.\n\
                 `http://…`, `https://…`: the file is downloaded to HOST/PATH in the files folder, unless it is there, and \
                 the word is its path.\n\
                 `tar:NAME`, `tar:http://…`: the archive is unpacked beside itself into a folder of its name without \
                 `.tar.gz` or the like, unless that is there, and the word is the folder's path.\n\n\
                 A fetch that fails fails the command. `file delete` what was fetched to fetch it anew.\n\n\
                 \x20   vm config disks http://10.0.0.1/images/web.qcow2\n    .preprocess false echo http://10.0.0.1/",
            )
            .local(),
            run: Run::Builtin(Builtin::Preprocess),
        },
        Command {
            declaration: Declaration::new(
                "read",
                &["read <file> [check,]"],
                "run the commands of a file",
                "Runs each line of a file on the engine's host (a relative path is relative to its files folder), with one \
                 answer for each. A command that fails does not stop it; a line that is no command does, and so does a \
                 `read` in the file. The file's commands run in the namespace that was active at its start, whatever other \
                 clients do meanwhile, until a `namespace NAME` or `clear namespace` in it changes that. With check, nothing is run and the first \
                 line that is no command is the answer.\n\n    read /srv/lab.mm check",
            )
            .local()
            .complete("file", Completion::Path),
            run: Run::Builtin(Builtin::Read),
        },
        switch(".annotate", &[".annotate [true,false]", ".annotate <true,false> (command)"],
            "show or set whether answers name their host",
            "With true, a table has a first column `host` and a text answer begins with `HOST: `. Default: true.\n\n\
             With a command, for that command only:\n\n    .annotate false version"),
        switch(".compress", &[".compress [true,false]", ".compress <true,false> (command)"],
            "show or set whether equal answers of several hosts are joined",
            "With true, hosts that answer the same are shown once, as `node[0-4,6]: …`. Not applied to JSON. Default: true."),
        switch(".csv", &[".csv [true,false]", ".csv <true,false> (command)"],
            "show or set whether tables are comma-separated values",
            "With true, tables are shown as CSV; JSON is switched off. Default: false.\n\n    .csv true vm info"),
        switch(".headers", &[".headers [true,false]", ".headers <true,false> (command)"],
            "show or set whether tables have a line of column names",
            "With false, tables are shown without their first line. Default: true."),
        switch(".json", &[".json [true,false]", ".json <true,false> (command)"],
            "show or set whether answers are JSON",
            "With true, the whole answer is shown as JSON; CSV is switched off. Default: false."),
        switch(".record", &[".record [true,false]", ".record <true,false> (command)"],
            "show or set whether commands are kept in the history",
            "With false, commands are not entered into `history`. Default: true. A line that begins with `.record false` is for programs \
             that ask again and again: where it fails, the log has it at the level debug.\n\n    .record false vm info"),
        switch(".sort", &[".sort [true,false]", ".sort <true,false> (command)"],
            "show or set whether tables are sorted",
            "With true, rows are shown sorted column by column, integers by value. Default: true."),
        Command {
            declaration: Declaration::new(".columns", &[".columns <columns as csv> (command)"],
                "show some columns of a table",
                "Columns are named as in the table's first line and joined by commas, at most 256; they are shown in the \
                 order given. A name that the table does not have is an error.\n\n    .columns name,state,vlan vm info\n\n\
                 Builtins nest. Those further inside act first: after `.columns name`, nothing else is left to filter on.")
                .local(),
            run: Run::Builtin(Builtin::Columns),
        },
        Command {
            declaration: Declaration::new(".filter", &[".filter <filter> (command)"],
                "show the rows of a table that match",
                "A filter is a column, an operator and a value: `=` equal, `!=` not equal, `~` contains, `!~` does not \
                 contain. Case does not matter. In a column that holds a list or an object, one matching element is \
                 enough.\n\n    .filter state=running vm info\n    .filter vlan~dmz .columns name vm info")
                .local(),
            run: Run::Builtin(Builtin::Filter),
        },
    ]
}
