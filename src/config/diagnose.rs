//! Findings about a config. Each has a location and is shown with the excerpt and with what to do.
//! All are reported at once, so that one run of `check` is enough to fix a file.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, normalize_untrusted_str};

/// Findings that a report prints. A file with more repeats one mistake, or is not a config.
const SHOWN_MAX: usize = 50;

/// Whether a finding rejects the config.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The gateway does not start with this config.
    Error,
    /// The config is accepted, but is probably not what was meant.
    Warning,
}

/// One error or warning about a config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Whether the finding rejects the config.
    pub severity: Severity,
    /// The problem, as a sentence without a full stop.
    pub message: String,
    /// Byte range in the file. `None` if the cause is a flag, a variable, or something missing.
    pub at: Option<Range<usize>>,
    /// Related ranges of the file, each with a label that explains the relation.
    pub also: Vec<(Range<usize>, String)>,
    /// What to do about it; may be empty.
    pub help: String,
}

impl Finding {
    /// Adds a related range, if it is known.
    pub(super) fn also(&mut self, at: Option<Range<usize>>, why: impl Into<String>) -> &mut Self {
        self.also.extend(at.map(|at| (at, why.into())));
        self
    }
}

/// Findings collected while a config is read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
    /// Byte ranges of secrets, which no excerpt may show.
    pub(super) secrets: Vec<Range<usize>>,
}

impl Findings {
    pub(super) fn error(
        &mut self,
        at: impl Into<Option<Range<usize>>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> &mut Finding {
        self.add(Severity::Error, at.into(), message.into(), help.into())
    }

    pub(super) fn warning(
        &mut self,
        at: impl Into<Option<Range<usize>>>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> &mut Finding {
        self.add(Severity::Warning, at.into(), message.into(), help.into())
    }

    fn add(
        &mut self,
        severity: Severity,
        at: Option<Range<usize>>,
        message: String,
        help: String,
    ) -> &mut Finding {
        self.list.push(Finding {
            severity,
            message,
            at,
            also: Vec::new(),
            help,
        });
        self.list.last_mut().expect("pushed above")
    }

    pub(super) fn any_error(&self) -> bool {
        self.list.iter().any(|it| it.severity == Severity::Error)
    }
}

/// Findings together with the file's text that they point into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The file's name as messages show it.
    pub name: String,
    /// The file's text with every secret replaced by `[secret]`. Empty without a file.
    pub text: String,
    /// Findings in the order of the file, then those without a location.
    pub findings: Vec<Finding>,
}

impl Report {
    pub(super) fn new(name: String, text: String, findings: Findings) -> Self {
        let (text, mut findings) = without_secrets(text, findings);
        findings.sort_by_key(|it| it.at.as_ref().map_or(usize::MAX, |at| at.start));
        Self {
            name,
            text,
            findings,
        }
    }

    /// Number of errors among the findings.
    #[must_use]
    pub fn errors(&self) -> usize {
        let error = |it: &&Finding| it.severity == Severity::Error;
        self.findings.iter().filter(error).count()
    }

    /// Renders the findings for a terminal, each with its excerpt. Empty if there are none.
    #[must_use]
    pub fn render(&self, colours: bool) -> String {
        let renderer = if colours {
            Renderer::styled()
        } else {
            Renderer::plain()
        };
        let shown = self.findings.iter().take(SHOWN_MAX);
        let mut parts: Vec<_> = shown.map(|it| self.render_one(it, &renderer)).collect();
        if self.findings.len() > SHOWN_MAX {
            parts.push(format!("and {} more", self.findings.len() - SHOWN_MAX));
        }
        parts.join("\n\n")
    }

    fn render_one(&self, finding: &Finding, renderer: &Renderer) -> String {
        let level = match finding.severity {
            Severity::Error => Level::ERROR,
            Severity::Warning => Level::WARNING,
        };
        let title = level.primary_title(normalize_untrusted_str(&finding.message));
        let help = normalize_untrusted_str(&finding.help);
        let mut group = annotate_snippets::Group::with_title(title);
        if let Some(at) = &finding.at {
            let primary = AnnotationKind::Primary.span(self.inside(at));
            let mut snippet = Snippet::source(&self.text)
                .path(&self.name)
                .annotation(primary);
            for (at, why) in &finding.also {
                let why = normalize_untrusted_str(why);
                let context = AnnotationKind::Context.span(self.inside(at)).label(why);
                snippet = snippet.annotation(context);
            }
            group = group.element(snippet);
        }
        if !help.is_empty() {
            group = group.element(Level::HELP.message(help));
        }
        renderer.render(&[group])
    }

    /// Clamps a range to the text. Every range is made from this text, but the renderer panics on a
    /// range outside of it, so do not rely on that.
    fn inside(&self, at: &Range<usize>) -> Range<usize> {
        match self.text.get(at.clone()) {
            Some(_) => at.clone(),
            None => self.text.len()..self.text.len(),
        }
    }
}

/// Replaces the secrets in the text and moves the findings' ranges accordingly.
fn without_secrets(mut text: String, findings: Findings) -> (String, Vec<Finding>) {
    let Findings { mut list, secrets } = findings;
    let mut secrets: Vec<_> = secrets
        .into_iter()
        .filter(|it| text.get(it.clone()).is_some())
        .collect();
    secrets.sort_by_key(|it| it.start);
    secrets.dedup_by(|later, earlier| later.start < earlier.end);
    // Replace from the last to the first, so that the ranges of earlier secrets stay valid.
    for secret in secrets.into_iter().rev() {
        // Keep the line breaks, so that later lines keep their numbers.
        let lines = text[secret.clone()].matches('\n').count();
        let shown = format!("[secret]{}", "\n".repeat(lines));
        let moved = |at: usize, inside: usize| match at {
            at if at >= secret.end => at - secret.len() + shown.len(),
            at if at > secret.start => secret.start + inside,
            at => at,
        };
        let places = list.iter_mut().flat_map(|finding| {
            let also = finding.also.iter_mut().map(|(at, _)| at);
            finding.at.iter_mut().chain(also)
        });
        for at in places {
            *at = moved(at.start, 0)..moved(at.end, "[secret]".len());
        }
        text.replace_range(secret.clone(), &shown);
    }
    (text, list)
}

/// Line of a byte offset, counted from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    1 + before.iter().filter(|b| **b == b'\n').count()
}

/// The known word most similar to `word`, if it is similar enough to suggest.
#[must_use]
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    // In a short word, one wrong letter weighs much in Jaro's measure.
    let is_one_slip = |it: &str| it.len() > 2 && strsim::damerau_levenshtein(word, it) == 1;
    let rated = known.into_iter().map(|it| {
        let slip = if is_one_slip(it) { 0.9 } else { 0.0 };
        (strsim::jaro_winkler(word, it).max(slip), it)
    });
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.8).then_some(best.1)
}
