//! A real browser with minimal automation: headless Chromium reads DevTools commands from a pipe
//! and answers on another (`--remote-debugging-pipe`), JSON with a NUL after each message. No
//! driver, no WebSocket.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use crate::client::PATIENCE;
use crate::process::Guarded;

/// A browser with one page.
pub struct Browser {
    commands: File,
    answers: Receiver<Value>,
    number: u64,
    session: String,
    _chromium: Guarded,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// Starts Chromium on an empty page.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder for the browser");
        let (to, from) = (folder.path().join("to"), folder.path().join("from"));
        let made = Command::new("mkfifo").args([&to, &from]).status();
        assert!(made.is_ok_and(|status| status.success()), "mkfifo");
        let line = "exec chromium --headless=new --no-sandbox --disable-gpu --no-first-run \
                    --disable-dev-shm-usage --window-size=1200,900 --remote-debugging-pipe \
                    --user-data-dir=profile about:blank 3<to 4>from";
        let log = folder.path().join("log");
        let chromium = Guarded::spawn(&["sh", "-c", line], &log, folder.path());
        // Opening a pipe waits for the other side to be opened.
        let commands = File::options()
            .write(true)
            .open(&to)
            .expect("the pipe to it");
        let output = File::open(&from).expect("the pipe from it");
        let (sender, answers) = sync_channel(1024);
        std::thread::spawn(move || {
            for message in BufReader::new(output).split(0).map_while(Result::ok) {
                let message = serde_json::from_slice(&message).expect("DevTools speaks JSON");
                if sender.send(message).is_err() {
                    return;
                }
            }
        });
        let mut browser = Self {
            commands,
            answers,
            number: 0,
            session: String::new(),
            _chromium: chromium,
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"]
            .as_str()
            .expect("a session")
            .to_owned();
        browser.call("Page.enable", json!({}));
        browser
    }

    /// Sends one command and returns its result.
    fn call(&mut self, method: &str, params: Value) -> Value {
        self.number += 1;
        let mut message = json!({"id": self.number, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.as_str().into();
        }
        let mut bytes = message.to_string().into_bytes();
        bytes.push(0);
        self.commands.write_all(&bytes).expect("the browser reads");
        loop {
            let mut answer = self
                .answers
                .recv_timeout(PATIENCE)
                .expect("the browser answers");
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }

    /// Opens an address in the page.
    pub fn open(&mut self, url: &str) {
        let opened = self.call("Page.navigate", json!({"url": url}));
        assert!(opened["errorText"].is_null(), "{url}: {opened}");
    }

    /// Lets later pages connect to any address, whatever their content security policy says: no
    /// policy lists a proxy between page and gateway.
    pub fn bypass_policies(&mut self) {
        self.call("Page.setBypassCSP", json!({"enabled": true}));
    }

    /// Accepts any certificate, such as a test makes for itself.
    pub fn ignore_certificates(&mut self) {
        self.call(
            "Security.setIgnoreCertificateErrors",
            json!({"ignore": true}),
        );
    }

    /// Evaluates a JavaScript expression, awaiting promises, and returns its value.
    pub fn eval(&mut self, expression: &str) -> Value {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let mut done = self.call("Runtime.evaluate", params);
        assert!(done["exceptionDetails"].is_null(), "{expression}: {done}");
        done["result"]["value"].take()
    }

    /// Waits until an expression is true. On a timeout, prints the value of `show`.
    pub fn wait_for(&mut self, expression: &str) {
        let until = Instant::now() + PATIENCE;
        // The page may not be loaded yet.
        let guarded =
            format!("(() => {{ try {{ return !!({expression}); }} catch {{ return false; }} }})()");
        while self.eval(&guarded) != Value::Bool(true) {
            if Instant::now() > until {
                let page = self.eval("document.body.innerText");
                panic!("`{expression}` does not become true; the page says:\n{page}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Saves a screenshot of the page.
    pub fn picture(&mut self, path: &Path) {
        let params = json!({"format": "png", "captureBeyondViewport": true});
        let picture = self.call("Page.captureScreenshot", params);
        let picture = picture["data"].as_str().expect("base64");
        let picture = base64::engine::general_purpose::STANDARD.decode(picture);
        fs::write(path, picture.expect("base64")).expect("write the picture");
    }
}
