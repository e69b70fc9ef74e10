//! Properties that hold for any text of a config.

use super::*;
use proptest::prelude::*;

/// Pieces of a config, so that random text gets past the TOML parser.
fn piece() -> impl Strategy<Value = String> {
    let words = TABLE
        .iter()
        .flat_map(|it| it.key.split('.'))
        .map(str::to_owned);
    let words: Vec<_> = words.collect();
    prop_oneof![
        Just("[[command]]\n".to_owned()),
        Just("[[query]]\n".to_owned()),
        Just("[[stream]]\n".to_owned()),
        Just("name = \"n\"\n".to_owned()),
        Just("topic = \"t\"\nreplies = \"r\"\n".to_owned()),
        "route = \"(GET|POST|X)? ?/?[a-z{}/%ä]{0,12}\"\n",
        "(key|filter.key|filter|headers|forward|start) = [\"'{]?[a-z{}.:/ä]{0,12}[\"'}]?\n",
        proptest::sample::select(words.clone()).prop_map(|it| format!("[{it}]\n")),
        (
            proptest::sample::select(words),
            "[0-9a-zA-Z\"\\[\\]{},.:\\\\-]{0,12}"
        )
            .prop_map(|(key, value)| format!("{key} = {value}\n")),
        "\\PC{0,8}",
        "[\\x00-\\x7f]{0,6}",
    ]
}

proptest! {
    /// No file causes a panic. Every finding's range lies in the text it is shown with, and every
    /// report can be rendered.
    #[test]
    fn any_text_is_a_config_or_placed_findings(
        pieces in proptest::collection::vec(piece(), 0..12)
    ) {
        let text = pieces.concat();
        let report = match load(file(&text)) {
            Ok(loaded) => loaded.report,
            Err(report) => {
                prop_assert!(report.errors() > 0);
                report
            }
        };
        for finding in &report.findings {
            for at in finding.at.iter().chain(finding.also.iter().map(|(at, _)| at)) {
                prop_assert!(report.text.get(at.clone()).is_some(), "{:?}", finding);
            }
        }
        let _ = report.render(false);
    }
}
