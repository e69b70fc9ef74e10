//! Keys of commands that choose between a few behaviours.

use super::*;

const COMMAND: &str = "[[command]]\nname = \"a\"\nroute = \"POST /a\"\ntopic = \"a\"\n\
                       replies = \"b\"\n";

const DELETE: &str = "[[command]]\nname = \"a\"\nroute = \"DELETE /a/{id}\"\ntopic = \"a\"\n\
                      replies = \"b\"\nkey = \"{path.id}\"\n";

#[test]
fn each_choice_has_a_default() {
    let config = load(file(COMMAND)).expect("a good config").config;
    let command = &config.commands[0];
    let choices = (command.dedupe, command.in_flight, command.condition);
    assert_eq!(
        choices,
        (Dedupe::Replies, InFlight::Join, Condition::Optional)
    );
    let one_way = (command.tombstone, command.one_way_status);
    assert_eq!(one_way, (false, OneWayStatus::Accepted));
}

#[test]
fn an_unknown_choice_is_shown_with_what_was_meant() {
    let refused = refused(&format!(
        "{COMMAND}dedupe = \"reply\"\none_way_status = 203\n"
    ));
    assert!(refused.contains("did you mean `replies`?"), "{refused}");
    assert!(
        refused.contains("expected 202 or 204, found 203"),
        "{refused}"
    );
    assert!(refused.contains("gateway.toml:6:10"), "{refused}");
}

#[test]
fn strict_without_idempotency_keys_is_a_warning() {
    let text = format!("{COMMAND}dedupe = \"strict\"\n");
    let report = load(file(&text)).expect("accepted").report;
    let rendered = report.render(false);
    assert!(
        rendered.contains("`strict` protects only commands"),
        "{rendered}"
    );
    assert!(rendered.contains("gateway.toml:6:10"), "{rendered}");
    let text = format!("{text}idempotency = \"required\"\n");
    assert_eq!(load(file(&text)).expect("accepted").report.findings, []);
}

#[test]
fn only_a_delete_of_a_key_writes_a_tombstone() {
    let said = refused(&format!("{COMMAND}key = \"k\"\ntombstone = true\n"));
    assert!(said.contains("a POST does not write a tombstone"), "{said}");
    let keyless = DELETE.replace("key = \"{path.id}\"\n", "");
    let said = refused(&format!("{keyless}tombstone = true\n"));
    assert!(
        said.contains("a tombstone needs the key that it deletes"),
        "{said}"
    );
    let config = load(file(&format!("{DELETE}tombstone = true\n")))
        .expect("good")
        .config;
    assert!(config.commands[0].tombstone);
    assert!(load(file(&format!("{COMMAND}tombstone = false\n"))).is_ok());
}

/// Locations of asynchronous commands are paths of the gateway, and name their route.
#[test]
fn the_paths_of_locations_belong_to_the_gateway() {
    let said = refused(&COMMAND.replace("POST /a", "POST /_sluicegate/a"));
    assert!(
        said.contains("paths below `/_sluicegate` are the gateway's own"),
        "{said}"
    );
    assert!(said.contains("gateway.toml:3:9"), "{said}");
    load(file(&COMMAND.replace("POST /a", "POST /a/_sluicegate"))).expect("only the first segment");
    for name in [".", ".."] {
        let said = refused(&COMMAND.replace("name = \"a\"", &format!("name = \"{name}\"")));
        assert!(said.contains("is not a valid route name"), "{said}");
    }
}

/// A command without replies.
fn one_way(keys: &str) -> String {
    COMMAND.replace("replies = \"b\"\n", keys)
}

/// The findings of a config that is accepted.
fn warnings(text: &str) -> String {
    load(file(text)).expect("accepted").report.render(false)
}

#[test]
fn a_one_way_route_says_what_is_not_promised() {
    assert_eq!(warnings(&one_way("one_way_status = 204\n")), "");
    let said = warnings(&one_way("idempotency = \"required\"\n"));
    assert!(
        said.contains("a retry after the first attempt was appended"),
        "{said}"
    );
    assert!(
        said.contains("dedupe = \"strict\"") && said.contains("gateway.toml:3:9"),
        "{said}"
    );
    let said = warnings(&one_way("idempotency = \"required\"\ndedupe = \"local\"\n"));
    assert!(said.contains("gateway.toml:6:10"), "{said}");
    let strict = one_way("idempotency = \"required\"\ndedupe = \"strict\"\n");
    assert_eq!(warnings(&strict), "");
    let said = warnings(&one_way("condition = \"required\"\n"));
    assert!(
        said.contains("no client learns whether its condition held"),
        "{said}"
    );
}

#[test]
fn a_route_with_replies_has_no_status_of_its_own() {
    let said = refused(&format!("{COMMAND}one_way_status = 202\n"));
    assert!(said.contains("has the status of the reply"), "{said}");
    assert!(said.contains("gateway.toml:6:18"), "{said}");
}

#[test]
fn a_tombstone_has_no_body_to_check() {
    let said = refused(&format!("{DELETE}tombstone = true\nschema = \"a.json\"\n"));
    assert!(said.contains("a tombstone has no body"), "{said}");
    assert!(load(file(&format!("{DELETE}schema = \"a.json\"\n"))).is_ok());
}
