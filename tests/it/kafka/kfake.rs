//! The core suite on kfake, franz-go's fake of a cluster in one process: an independent
//! implementation of broker responses. It needs Go and its module. If they are not available, each
//! test prints that it was skipped. (It rejects batches that are large when unpacked, so that case
//! is not tested here.)

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;

use crate::ground::Ground;

macro_rules! stories {
    ($($module:ident::$story:ident,)*) => {
        $(
            #[test]
            fn $story() {
                if let Some(ground) = kfake() {
                    crate::scenarios::$module::$story(ground);
                }
            }
        )*
    };
}

stories![
    commands::a_reply_becomes_the_response,
    commands::a_retry_at_a_peer_started_later_gets_the_same_reply,
    commands::commands_of_many_clients_each_get_their_own_reply,
    queries::all_of_them_over_many_shards,
    queries::a_write_becomes_visible,
    streams::a_live_stream_begins_now,
    streams::a_snapshot_is_the_newest_of_each_key,
    streams::records_of_every_codec,
    streams::records_without_key_or_value,
    streams::every_line_end_of_a_value_is_a_line,
    streams::a_stream_goes_on_at_another_peer,
    starting::a_missing_topic_is_named_until_it_is_there,
];

/// The fake cluster, if it can be built.
fn kfake() -> Option<&'static Ground> {
    static GROUND: OnceLock<Result<(Child, Ground), String>> = OnceLock::new();
    match GROUND.get_or_init(start) {
        Ok((_, ground)) => Some(ground),
        Err(why) => {
            // Write to standard error directly, because the harness hides the output of tests that
            // pass.
            let _shown = writeln!(std::io::stderr(), "SKIPPED, there is no kfake: {why}");
            None
        }
    }
}

/// The Go toolchain that `tests/setup` has fetched, or the machine's own.
pub fn go() -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
    let fetched = cache
        .or_else(home)
        .map(|it| it.join("sluicegate-go/go/bin/go"));
    fetched
        .filter(|it| it.exists())
        .unwrap_or_else(|| "go".into())
}

fn start() -> Result<(Child, Ground), String> {
    let program = Path::new(env!("CARGO_TARGET_TMPDIR")).join("kfake");
    let built = Command::new(go())
        .args(["build", "-mod=readonly", "-o"])
        .arg(&program)
        .arg(".")
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/kfake"))
        .output()
        .map_err(|error| format!("go: {error}"))?;
    if !built.status.success() {
        return Err(String::from_utf8_lossy(&built.stderr).into_owned());
    }
    // The process ends with its standard input, which ends with this process.
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|error| format!("kfake: {error}"))?;
    let mut line = String::new();
    let output = child.stdout.take().expect("piped above");
    let read = BufReader::new(output).read_line(&mut line);
    read.expect("kfake says where it listens");
    Ok((child, Ground::at(line.trim())))
}
