//! Tokens for brokers (SASL OAUTHBEARER), from a file that an operator renews or from a program
//! that prints them. Only the expiry time of a token is read. The broker decides whether a token is
//! valid.

use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64_URL;
use tokio::io::AsyncReadExt as _;
use tokio::time::{Instant, sleep_until, timeout};

use crate::config::{ClusterKeys, KafkaSasl};
use crate::model::Secret;

/// How often the token file is read. It is small, so polling is cheaper than asking operators for a
/// signal after each renewal.
const FILE_READ_EVERY: Duration = Duration::from_secs(1);
/// Time for the program to print a token. After it, the program is killed.
const COMMAND_TIME_MAX: Duration = Duration::from_secs(10);
/// Most bytes of a token. Brokers accept less.
const TOKEN_BYTES_MAX: usize = 64 * 1024;
/// Most bytes of a program's standard error that are logged.
const STDERR_BYTES_MAX: usize = 300;
/// Longest wait after the program has failed.
const RETRY_MAX: Duration = Duration::from_secs(10);

/// The source of a cluster's tokens, and its last token.
#[derive(Debug)]
pub struct Tokens {
    source: Source,
    /// Names of the cluster's keys in messages.
    keys: ClusterKeys,
    /// How often the program runs if its tokens have no expiry time.
    interval: Duration,
    due: Instant,
    failures: u32,
    /// The last token. It is used until it expires, even if the source fails.
    last: Option<Token>,
    /// The last result that `next` returned.
    last_result: Option<Result<Secret, String>>,
}

#[derive(Debug)]
enum Source {
    File(PathBuf),
    Command(Vec<String>),
}

#[derive(Clone, Debug)]
struct Token {
    secret: Secret,
    /// Expiry time in seconds since 1970, if the token has one.
    expires: Option<u64>,
}

impl Token {
    /// Time until the token expires. `None` if it has no expiry time.
    fn lifetime(&self) -> Option<Duration> {
        let left = self.expires?.saturating_sub(unix_now());
        Some(Duration::from_secs(left))
    }

    fn is_valid(&self) -> bool {
        self.lifetime().is_none_or(|left| !left.is_zero())
    }
}

impl Tokens {
    /// The token source of the config. `None` if the cluster uses no tokens.
    #[must_use]
    pub fn of(sasl: &KafkaSasl, keys: ClusterKeys) -> Option<Self> {
        let source = match (&sasl.token_file, sasl.token_command.as_slice()) {
            (Some(path), _) => Source::File(path.clone()),
            (None, []) => return None,
            (None, command) => Source::Command(command.to_vec()),
        };
        Some(Self {
            source,
            keys,
            interval: sasl.token_interval,
            due: Instant::now(),
            failures: 0,
            last: None,
            last_result: None,
        })
    }

    /// Waits until the result changes: there is a new token, or none is valid any more, with the
    /// reason. Cancel-safe.
    pub async fn next(&mut self) -> Result<Secret, String> {
        loop {
            sleep_until(self.due).await;
            let got = self.source.read(&self.keys).await;
            let result = match got {
                Ok(token) => {
                    self.failures = 0;
                    self.due = Instant::now() + self.wait_after(&token);
                    let secret = token.secret.clone();
                    self.last = Some(token);
                    Ok(secret)
                }
                Err(why) => {
                    self.failures += 1;
                    self.due = Instant::now() + self.wait_after_failure();
                    match &self.last {
                        // The source failed, but the last token is still valid.
                        Some(last) if last.is_valid() => Ok(last.secret.clone()),
                        _ => Err(format!("no token for {}: {why}", self.keys.brokers())),
                    }
                }
            };
            if self.last_result.as_ref() != Some(&result) {
                self.last_result = Some(result.clone());
                return result;
            }
        }
    }

    fn wait_after(&self, token: &Token) -> Duration {
        match (&self.source, token.lifetime()) {
            (Source::File(_), _) => FILE_READ_EVERY,
            (Source::Command(_), None) => self.interval,
            (Source::Command(_), Some(left)) => (left * 3 / 4).max(Duration::from_secs(1)),
        }
    }

    fn wait_after_failure(&self) -> Duration {
        match self.source {
            Source::File(_) => FILE_READ_EVERY,
            Source::Command(_) => {
                let doublings = self.failures.saturating_sub(1).min(5);
                RETRY_MAX.min(Duration::from_secs(1 << doublings))
            }
        }
    }
}

impl Source {
    async fn read(&self, keys: &ClusterKeys) -> Result<Token, String> {
        match self {
            Self::File(path) => {
                let name = path.display();
                let key = keys.key("sasl.token_file");
                let text = read_file(path).await;
                let text =
                    text.map_err(|error| format!("can't read {name}: {error}; correct {key}"))?;
                parse(&text).map_err(|why| format!("{key}: {name} {why}"))
            }
            Self::Command(command) => {
                let name = command.first().map_or("", String::as_str);
                let printed = timeout(COMMAND_TIME_MAX, run(command)).await;
                let late = || format!("nothing came within {COMMAND_TIME_MAX:?}");
                let printed = printed.unwrap_or_else(|_| Err(late()));
                let key = keys.key("sasl.token_command");
                let printed = printed.map_err(|why| format!("`{name}`: {why}; correct {key}"))?;
                parse(&printed).map_err(|why| format!("{key}: what `{name}` prints {why}"))
            }
        }
    }
}

async fn read_file(path: &std::path::Path) -> std::io::Result<Vec<u8>> {
    let path = path.to_owned();
    // A file system may hang, so do not read on the control thread.
    let read = move || {
        use std::io::Read as _;
        let mut text = Vec::new();
        let file = std::fs::File::open(path)?;
        file.take(TOKEN_BYTES_MAX as u64 + 1)
            .read_to_end(&mut text)?;
        Ok(text)
    };
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|error| Err(std::io::Error::other(error)))
}

/// Runs a program and returns what it prints. Dropping the future kills the program.
async fn run(command: &[String]) -> Result<Vec<u8>, String> {
    let (program, arguments) = command.split_first().ok_or("there is no program")?;
    let mut child = tokio::process::Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("can't be run: {error}"))?;
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let (mut out, mut err) = (out.expect("piped above"), err.expect("piped above"));
    let (mut printed, mut stderr) = (Vec::new(), Vec::new());
    let most = TOKEN_BYTES_MAX as u64 + 1;
    let (mut out, mut err) = ((&mut out).take(most), (&mut err).take(most));
    let print = async {
        out.read_to_end(&mut printed).await?;
        if printed.len() > TOKEN_BYTES_MAX {
            // Fail without waiting for the program's end: it may never end.
            Err(std::io::Error::other("it prints more than a token"))
        } else {
            Ok(())
        }
    };
    let read = tokio::try_join!(print, err.read_to_end(&mut stderr));
    read.map_err(|error| error.to_string())?;
    let status = child.wait().await.map_err(|error| error.to_string())?;
    if status.success() {
        return Ok(printed);
    }
    let stderr = String::from_utf8_lossy(&stderr[..stderr.len().min(STDERR_BYTES_MAX)]);
    let stderr: String = stderr
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    Err(format!("{status}: {}", stderr.trim()))
}

/// Parses a bearer token (RFC 6750 2.1), ignoring white space around it.
fn parse(text: &[u8]) -> Result<Token, String> {
    let text = text.trim_ascii();
    if text.is_empty() {
        return Err("has no token".into());
    }
    let legal = |b: &u8| b.is_ascii_alphanumeric() || b"-._~+/=".contains(b);
    if text.len() > TOKEN_BYTES_MAX || !text.iter().all(legal) {
        return Err("is no bearer token, which has letters, digits and -._~+/= only".into());
    }
    let text = std::str::from_utf8(text).expect("ASCII, as looked at above");
    let token = Token {
        secret: Secret::new(text),
        expires: expiry_of(text),
    };
    if !token.is_valid() {
        let ended = unix_now().saturating_sub(token.expires.unwrap_or(0));
        return Err(format!(
            "has a token that ended {ended} s ago: renew it, it is taken as soon as it is there"
        ));
    }
    Ok(token)
}

/// Claim `exp` of a JWT (RFC 7519 4.1.4), or `None` if the token is not a JWT. The signature is not
/// verified: that is the broker's task.
#[expect(clippy::cast_possible_truncation, reason = "the cast saturates")]
fn expiry_of(token: &str) -> Option<u64> {
    let payload = token.split('.').nth(1)?;
    let payload = BASE64_URL.decode(payload).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&payload).ok()?;
    let end = claims.get("exp")?.as_f64()?;
    (end >= 0.0).then_some(end as u64)
}

fn unix_now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| now.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(life: i64) -> String {
        let ends = unix_now() as i64 + life;
        let part = |text: &str| BASE64_URL.encode(text);
        format!("{}.{}.", part("{}"), part(&format!("{{\"exp\":{ends}.5}}")))
    }

    fn of(file: Option<PathBuf>, command: &[&str]) -> Tokens {
        let sasl = KafkaSasl {
            token_file: file,
            token_command: command.iter().map(|&word| word.to_owned()).collect(),
            ..KafkaSasl::default()
        };
        Tokens::of(&sasl, ClusterKeys::default()).expect("a source")
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        runtime.expect("a runtime").block_on(work)
    }

    #[test]
    fn a_token_is_read_with_its_end() {
        let text = token(100);
        let parsed = parse(format!("\n {text} \n").as_bytes()).expect("a token");
        assert_eq!(parsed.secret.expose(), text);
        assert!(parsed.lifetime().expect("said") > Duration::from_secs(90));
        assert_eq!(parse(b"opaque").expect("a token").expires, None);
        for (bad, why) in [
            ("", "no token"),
            ("a b", "no bearer"),
            (&*token(-5), "ended 5"),
        ] {
            let said = parse(bad.as_bytes()).expect_err(bad);
            assert!(said.contains(why), "{said}");
        }
    }

    #[test]
    fn a_file_that_is_put_right_is_taken_by_itself() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("token");
        let mut tokens = of(Some(path.clone()), &[]);
        block_on(async {
            let missing = tokens.next().await.expect_err("no file");
            assert!(missing.contains("token_file"), "{missing}");
            std::fs::write(&path, token(-1)).expect("write");
            assert!(tokens.next().await.expect_err("over").contains("renew"));
            let good = token(3);
            std::fs::write(&path, &good).expect("write");
            assert_eq!(tokens.next().await.expect("a token").expose(), good);
            // Without its file, the last token is used until it expires.
            std::fs::remove_file(&path).expect("remove");
            let over = tokens.next().await.expect_err("over, and no file");
            assert!(over.contains("can't read"), "{over}");
        });
    }

    #[test]
    fn a_program_prints_a_token_or_is_named() {
        let next = |command: &[&str]| {
            let mut tokens = of(None, command);
            block_on(tokens.next())
        };
        assert_eq!(next(&["echo", "abc"]).expect("a token").expose(), "abc");
        let cases: [(&[&str], &str); 4] = [
            (&["/no/such/program"], "can't be run"),
            (&["sh", "-c", "echo why >&2; exit 3"], "why"),
            (&["true"], "no token"),
            (&["yes"], "more than a token"),
        ];
        for (command, why) in cases {
            let said = next(command).expect_err("no token");
            assert!(said.contains(why), "{said}");
        }
    }
}
