//! What a panic ends: one connection where its bytes are parsed or its response is encoded, the
//! process anywhere else. The panics are planted.

use std::time::Instant;

use crate::app::App;
use crate::client::{PATIENCE, Request};
use crate::gateway::Gateway;
use crate::ground::development;

/// A gateway that panics on bytes with a marker.
fn gateway(app: &App) -> Gateway {
    let planted = ["env".to_owned(), "PLANT_PANICS=1".to_owned()];
    let gateway = Gateway::launch_under(&planted, &app.config(1, ""), &[]);
    gateway.wait_serving();
    gateway.wait_until(&Request::get("/items/good"), |it| it.status == 200);
    gateway
}

#[test]
fn a_panic_over_one_connections_bytes_closes_that_connection() {
    let app = App::new(development());
    app.produce(&app.items)
        .keyed([("good", "1"), ("bad", "planted-encode")]);
    let gateway = gateway(&app);
    let panics = || gateway.metric("sluicegate_connection_panics_total", "");
    let mut beside = gateway.connect();
    for n in 0..8 {
        // Parsing: what was answered before is sent.
        let mut client = gateway.connect();
        client.send(&Request::get("/items/good").bytes());
        assert_eq!(client.response(false).status, 200, "{n}");
        client.send(&Request::get("/planted-parse").bytes());
        client.expect_close();
        // Encoding: behind an answer in the same turn.
        let mut client = gateway.connect();
        let two = [Request::get("/items/good"), Request::get("/items/bad")];
        client.send(&two.map(|it| it.bytes()).concat());
        assert_eq!(client.response(false).text(), "1");
        client.expect_close();
        assert_eq!(beside.ask(&Request::get("/items/good")).text(), "1");
    }
    assert!((panics() - 16.0).abs() < 0.1, "{}", panics());
    // The log names the first, second, fourth, eighth and sixteenth.
    let lines = || gateway.said().matches("connection was closed").count();
    let until = Instant::now() + PATIENCE;
    while lines() < 5 {
        assert!(Instant::now() < until, "{}", gateway.said());
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert_eq!(lines(), 5);
    assert_eq!(gateway.admin_get("/readyz").status, 200);
    gateway.wait_admin("/status", |_| gateway.status_sum("connections") == 1);
}

#[test]
fn a_panic_where_shared_state_changes_ends_the_process() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("good", "1")]);
    let mut gateway = gateway(&app);
    gateway
        .connect()
        .send(&Request::get("/items/planted-handle").bytes());
    let status = gateway.wait();
    assert_eq!(status.code(), Some(70), "{}", gateway.said());
}
