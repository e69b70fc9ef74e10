//! Pages of other origins over HTTP: a policy for each route, and commands with cookies.

use crate::app::App;
use crate::client::{Request, Response};
use crate::gateway::Gateway;
use crate::ground::development;

const SHOP: &str = "https://shop.example";
const EVIL: &str = "https://evil.example";

/// Pages of the shop may use all routes, and any page the collection.
fn gateway(app: &App) -> Gateway {
    let settings = format!("[cors]\norigins = [\"{SHOP}\"]\ncredentials = true\n");
    let config = app.config(1, &settings);
    let collection = "route = \"GET /items\"\n";
    assert!(config.contains(collection));
    let public = format!("{collection}cors = {{ origins = [\"*\"], credentials = false }}\n");
    let gateway = Gateway::start(&config.replace(collection, &public));
    gateway.wait_until(&Request::get("/items"), |it| it.status == 200);
    gateway
}

fn allowed(answer: &Response) -> Option<&str> {
    answer.header("access-control-allow-origin")
}

#[test]
fn each_route_is_for_the_pages_that_it_lists() {
    let app = App::new(development());
    app.produce(&app.items).keyed([("a", "1")]);
    let gateway = gateway(&app);
    for (target, origin, reader, varies) in [
        ("/items/a", SHOP, Some(SHOP), true),
        ("/items/a", EVIL, None, true),
        ("/items", SHOP, Some("*"), false),
        ("/items", EVIL, Some("*"), false),
        // No route: readable for pages of any policy, since nothing of a route is in it. Any page
        // is one of them.
        ("/nowhere", SHOP, Some(SHOP), true),
        ("/nowhere", EVIL, Some("*"), false),
    ] {
        let get = gateway.ask(&Request::get(target).header("origin", origin));
        assert_eq!(allowed(&get), reader, "{target} for {origin}: {get:?}");
        let by_origin = get.header("vary") == Some("origin");
        assert_eq!(by_origin, varies, "{target} for {origin}");
        let credentials = get.header("access-control-allow-credentials");
        assert_eq!(credentials.is_some(), reader == Some(SHOP), "{target}");
    }
    let preflight = |target: &str, origin: &str, method: &str| {
        let request = Request::new("OPTIONS", target).header("origin", origin);
        gateway.ask(&request.header("access-control-request-method", method))
    };
    for (target, origin, method, reader) in [
        ("/items/a", SHOP, "PUT", Some(SHOP)),
        ("/items/a", EVIL, "PUT", None),
        ("/items", EVIL, "GET", Some("*")),
        ("/items", EVIL, "PUT", None),
        ("/items/a", SHOP, "BREW", None),
    ] {
        let answer = preflight(target, origin, method);
        assert_eq!((answer.status, answer.body.len()), (204, 0));
        assert_eq!(allowed(&answer), reader, "{method} {target} for {origin}");
        let cached = answer.header("access-control-max-age");
        assert_eq!(cached, reader.map(|_| "600"), "{method} {target}");
    }
}

/// A page can send a `text/plain` POST with its visitor's cookies without a preflight.
#[test]
fn a_command_with_cookies_of_a_foreign_page_is_refused() {
    let app = App::new(development());
    let gateway = gateway(&app);
    let post = |origin: Option<&str>, cookie: bool| {
        let mut request = Request::new("POST", "/hasty/a").body(b"{}");
        request = request.header("content-type", "text/plain");
        if let Some(origin) = origin {
            request = request.header("origin", origin);
        }
        if cookie {
            request = request.header("cookie", "session=1");
        }
        request
    };
    for origin in [EVIL, "null", "http://test.evil", "http://test:81"] {
        let answer = gateway.ask(&post(Some(origin), true));
        assert_eq!((answer.status, &*answer.problem()), (403, "foreign-origin"));
        let expects = post(Some(origin), true).header("expect", "100-continue");
        assert_eq!(gateway.ask(&expects).status, 403, "{origin}");
    }
    let two = post(Some(SHOP), true).header("origin", SHOP);
    assert_eq!(gateway.ask(&two).status, 403, "two origins are none");
    assert_eq!(app.commands_in_log().len(), 0, "nothing was produced");
    // These pass. No service answers, so they end with 504.
    for (origin, cookie) in [
        (Some(EVIL), false),
        (Some(SHOP), true),
        (Some("http://test"), true),
        (Some("https://test"), true),
        (None, true),
    ] {
        let answer = gateway.ask(&post(origin, cookie));
        assert_eq!(answer.status, 504, "{origin:?}: {answer:?}");
    }
    assert_eq!(app.commands_in_log().len(), 5);
}
