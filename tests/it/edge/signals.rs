//! Signals: which of them end a gateway in order, and which do not.

use rustix::process::Signal;

use crate::app::App;
use crate::client::Request;
use crate::ground::development;

#[test]
fn signals_that_ask_for_no_end_are_ignored_at_any_time() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let signals = [Signal::HUP, Signal::USR1, Signal::USR2, Signal::PIPE];
    // While the gateway loads: its broker does not exist.
    let waiting =
        crate::gateway::Gateway::launch(&app.config(1, "").replace(app.bootstrap(), "127.0.0.1:1"));
    waiting.wait_said_text("admin port open");
    let mut serving = app.gateway(2);
    for signal in signals {
        for gateway in [&waiting, &serving] {
            gateway.signal(signal);
            assert_eq!(gateway.admin_get("/livez").status, 200, "{signal:?}");
        }
        assert_eq!(
            serving.ask(&Request::get("/items/a")).text(),
            "1",
            "{signal:?}"
        );
    }
    for gateway in [&waiting, &serving] {
        gateway.wait_said_text("SIGHUP: the files of certificates");
        gateway.wait_said_text("SIGUSR1 ignored");
        gateway.wait_said_text("SIGUSR2 ignored");
    }
    serving.terminate();
    assert_eq!(serving.wait().code(), Some(0));
}

#[test]
fn sigquit_drains_as_sigterm_does() {
    let app = App::new(development());
    let mut gateway = app.gateway(1);
    gateway.signal(Signal::QUIT);
    gateway.wait_said_text("draining");
    assert_eq!(gateway.wait().code(), Some(0));
}
