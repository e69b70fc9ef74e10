//! What is wrong with a config: every finding with its place, shown with the excerpt and with what
//! to do. All of them at once, because a config that is fixed one error a run is not fixed.

use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, normalize_untrusted_str};

/// Findings shown; a file with more has one mistake many times, or is no config.
const SHOWN_MAX: usize = 50;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The config is refused.
    Error,
    /// It is taken, and probably not what was meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// What is wrong, in a sentence without a full stop.
    pub message: String,
    /// Where, in bytes of the file; `None`: in a flag, in the environment, or nowhere.
    pub at: Option<Range<usize>>,
    /// Other places that have to do with it, and why.
    pub also: Vec<(Range<usize>, String)>,
    /// What to do.
    pub help: String,
}

impl Finding {
    /// Adds another place.
    pub(super) fn also(&mut self, at: Option<Range<usize>>, why: impl Into<String>) -> &mut Self {
        self.also.extend(at.map(|at| (at, why.into())));
        self
    }
}

/// The findings so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Findings {
    pub(super) list: Vec<Finding>,
    /// Parts of the file that no excerpt may show.
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

/// Findings together with the text they point into.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Name of the file.
    pub name: String,
    /// Its text, with `[secret]` for what must not be seen; empty if there is none.
    pub text: String,
    /// In the order of the file, then those without a place.
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

    /// Errors among the findings.
    #[must_use]
    pub fn errors(&self) -> usize {
        let error = |it: &&Finding| it.severity == Severity::Error;
        self.findings.iter().filter(error).count()
    }

    /// The findings for a person, each with the excerpt; empty if there are none. `colours` for a
    /// terminal that wants them.
    #[must_use]
    pub fn render(&self, colours: bool) -> String {
        let renderer = match colours {
            true => Renderer::styled(),
            false => Renderer::plain(),
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

    /// A place is made from the text it points into; this holds the renderer to it whatever comes.
    fn inside(&self, at: &Range<usize>) -> Range<usize> {
        match self.text.get(at.clone()) {
            Some(_) => at.clone(),
            None => self.text.len()..self.text.len(),
        }
    }
}

/// The text with its secrets hidden, and the findings at their places in that.
fn without_secrets(mut text: String, findings: Findings) -> (String, Vec<Finding>) {
    let Findings { mut list, secrets } = findings;
    let mut secrets: Vec<_> = secrets
        .into_iter()
        .filter(|it| text.get(it.clone()).is_some())
        .collect();
    secrets.sort_by_key(|it| it.start);
    secrets.dedup_by(|later, earlier| later.start < earlier.end);
    // From the last on, so that the places of the others still hold.
    for secret in secrets.into_iter().rev() {
        // Later lines keep their numbers.
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

/// Where a byte stands, line from 1.
pub(super) fn line_of(text: &str, at: usize) -> usize {
    let before = &text.as_bytes()[..at.min(text.len())];
    1 + before.iter().filter(|b| **b == b'\n').count()
}

/// The known word nearest to `word`, if one is near enough to be meant.
#[must_use]
pub(super) fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let rated = known
        .into_iter()
        .map(|it| (strsim::jaro_winkler(word, it), it));
    let best = rated.max_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 > 0.8).then_some(best.1)
}
