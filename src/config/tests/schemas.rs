//! Keys of commands that say what a request must be: `schema` and `params`.

use super::*;

fn command(keys: &str) -> String {
    format!(
        "[[command]]\nname = \"a\"\nroute = \"POST /a/{{id}}/{{kind}}\"\ntopic = \"a\"\n\
         replies = \"b\"\nkey = \"{{path.id}}\"\n{keys}"
    )
}

#[test]
fn a_schema_is_beside_the_config_file() {
    for (file, given, expected) in [
        ("gateway.toml", "a.json", "a.json"),
        (
            "/etc/sluicegate/gateway.toml",
            "a.json",
            "/etc/sluicegate/a.json",
        ),
        ("conf/gateway.toml", "../a.json", "conf/../a.json"),
        ("conf/gateway.toml", "/srv/a.json", "/srv/a.json"),
    ] {
        let mut sources = super::file(&command(&format!("schema = \"{given}\"\n")));
        sources.file.as_mut().expect("given").name = file.into();
        let config = load(sources).expect("a good config").config;
        let schema = config.commands[0].schema.as_ref().expect("given");
        assert_eq!(schema.path, std::path::Path::new(expected), "{file}");
    }
}

#[test]
fn params_have_types_and_bounds() {
    let keys = "params = { path.id = \"uuid\", path.kind = { values = [\"x\", \"y\"] }, \
                query.limit = { type = \"integer\", min = 1, max = 100, required = true } }\n";
    let config = load(file(&command(keys))).expect("a good config").config;
    let mut params = config.commands[0].params.clone();
    params.sort_by(|a, b| a.name.cmp(&b.name));
    let rule = |place, name: &str, kind, required| ParamRule {
        place,
        name: name.into(),
        kind,
        required,
    };
    let kinds = ParamKind::OneOf(vec!["x".into(), "y".into()]);
    let limit = ParamKind::Integer { min: 1, max: 100 };
    let expected = [
        rule(ParamPlace::Path(0), "id", ParamKind::Uuid, false),
        rule(ParamPlace::Path(1), "kind", kinds, false),
        rule(ParamPlace::Query, "limit", limit, true),
    ];
    assert_eq!(params, expected);
}

#[test]
fn wrong_params_are_pointed_at() {
    for (keys, message, help) in [
        (
            "path.di = \"integer\"",
            "has no `{di}`",
            "name a parameter of the path",
        ),
        (
            "path.kinds = \"integer\"",
            "has no `{kinds}`",
            "did you mean `kind`?",
        ),
        (
            "path.id = \"intger\"",
            "did you mean `integer`?",
            "write `string`",
        ),
        ("path.id = 7", "`id`", "write `string`"),
        (
            "header.x = \"integer\"",
            "unknown key `header`",
            "known keys: path, query",
        ),
        (
            "query.a-b = \"integer\"",
            "not the name of a query parameter",
            "letters",
        ),
        (
            "query.a = { min = 1 }",
            "only an integer has bounds",
            "type = \"integer\"",
        ),
        (
            "query.a = { type = \"integer\", min = 2, max = 1 }",
            "from 2 to 1",
            "swap",
        ),
        (
            "query.a = { type = \"uuid\", values = [\"a\"] }",
            "`values` are texts",
            "without `type`",
        ),
        (
            "query.a = { values = [] }",
            "`values` are texts",
            "without `type`",
        ),
        (
            "query.a = { typ = \"uuid\" }",
            "unknown key `typ`",
            "did you mean `type`?",
        ),
    ] {
        let said = refused(&command(&format!("params.{keys}\n")));
        assert!(
            said.contains(message) && said.contains(help),
            "{keys}: {said}"
        );
        assert!(said.contains("gateway.toml:7"), "{keys}: {said}");
    }
    let many: Vec<String> = (0..=QUERY_PARAMS_MAX)
        .map(|n| format!("query.q{n} = \"integer\""))
        .collect();
    let said = refused(&command(&format!("params = {{ {} }}\n", many.join(", "))));
    assert!(said.contains("more than 32 query parameters"), "{said}");
}
