//! What is wrong with a config: every finding with its place, shown with the excerpt.

/// The known word nearest to `word`, if one is near enough to be meant.
#[must_use]
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let rated = known
        .into_iter()
        .map(|it| (strsim::jaro_winkler(word, it), it));
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.8).then_some(best.1)
}
