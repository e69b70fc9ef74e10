//! Configs for common tasks, which `docs/config.md` shows. A test loads each of them.

/// A task, and the part of a config that does it.
pub(super) struct Recipe {
    pub(super) title: &'static str,
    /// What to know about it, as sentences.
    pub(super) text: &'static str,
    pub(super) toml: &'static str,
}

pub(super) const RECIPES: &[Recipe] = &[
    Recipe {
        title: "A payment that happens once",
        text: "A client that retries with its `Idempotency-Key`, at any instance, gets the reply \
               of the first attempt. `strict` also recognises an attempt that is not answered yet. \
               The body is checked before anything is written; see `docs/http.md` for the 422.",
        toml: r#"[[command]]
name = "pay"
route = "POST /accounts/{id}/payments"
topic = "payments-commands"
replies = "payments-replies"
key = "{path.id}"
idempotency = "required"
dedupe = "strict"
schema = "payment.schema.json"
params = { path.id = "uuid", query.notify = "boolean" }
"#,
    },
    Recipe {
        title: "A change of what the client has read",
        text: "The client sends the `ETag` of its last GET as `If-Match`. The service compares it, \
               and answers 412 with the present `etag`.",
        toml: r#"[[command]]
name = "rename"
route = "PATCH /accounts/{id}"
topic = "accounts-commands"
replies = "accounts-replies"
key = "{path.id}"
condition = "required"
"#,
    },
    Recipe {
        title: "A service written for Zilla",
        text: "Zilla puts every header of a request on the record; here `forward` lists those that \
               the service reads. Zilla's `overrides` are `headers`.",
        toml: r#"[kafka.headers]
preset = "zilla"

[[command]]
name = "create"
route = "PUT /items/{id}"
topic = "items-requests"
replies = "items-responses"
key = "{path.id}"
headers = { "zilla:domain-model" = "Item" }
forward = ["content-type"]
"#,
    },
    Recipe {
        title: "A service with Spring Kafka",
        text: "A `@KafkaListener` with an empty `@SendTo` replies to the topic that the command \
               names. Its return value is the body of a 200; a message with the header `:status` \
               has another status.",
        toml: r#"[kafka.headers]
preset = "spring"

[[command]]
name = "quote"
route = "POST /quotes"
topic = "quotes"
replies = "quotes-replies"
"#,
    },
];
