//! One figure: a measure of all zones on the same axes.

use maud::{Markup, html};

use super::draw::{Scale, Unit, path, px, time_axis, time_ticks, value_axis};
use super::figure::{Figure, Measure};
use super::words;
use crate::domain::{Signal, Zone};

const WIDTH: f64 = 460.0;
const HEIGHT: f64 = 196.0;
const LEFT: f64 = 52.0;
const RIGHT: f64 = WIDTH - 12.0;
const TOP: f64 = 18.0;
const BOTTOM: f64 = HEIGHT - 22.0;
/// Looks of peers that can be told apart; more of them share.
const PEER_LOOKS: usize = 5;

pub(super) const fn unit(measure: &Measure) -> Unit {
    match measure {
        Measure::Failed(_) | Measure::Slower(_) | Measure::Scraped => Unit::Share,
        Measure::Quantile(_) => Unit::Milliseconds,
        Measure::Traffic(_) => Unit::PerSecond,
        Measure::Excess(Signal::Latency) => Unit::Times,
        Measure::Excess(_) => Unit::Points,
    }
}

/// The class of a zone's curve: the one concerned stands out.
fn look(figure: &Figure, at: usize, zone: &Zone) -> String {
    if figure.zone.as_ref() == Some(zone) {
        return "own".to_owned();
    }
    let first = usize::from(figure.zones().first().is_some_and(|first| figure.zone.as_ref() == Some(*first)));
    format!("peer{}", (at - first) % PEER_LOOKS)
}

/// Which curve is which.
pub(super) fn legend(figures: &[Figure]) -> Markup {
    let Some(widest) = figures.iter().max_by_key(|figure| figure.zones().len()) else { return html! {} };
    let sample = |class: &str| {
        html! { svg.sample width="26" height="10" aria-hidden="true" { path class=(class) d="M1 5H25" {} } }
    };
    html! {
        p.legend {
            @for (at, zone) in widest.zones().into_iter().enumerate() {
                span { (sample(&format!("curve {}", look(widest, at, zone)))) (zone) }
            }
            @if figures.iter().any(|figure| figure.expected.is_some()) {
                span { (sample("expected")) "expected" }
            }
            @if figures.iter().any(|figure| figure.judged_from.is_some()) {
                span { svg.sample width="26" height="12" aria-hidden="true" {
                    rect.judged x="4" width="18" height="12" {} line.moment x1="22" x2="22" y1="0" y2="12" {}
                } "what was judged, and when" }
            }
        }
    }
}

pub(super) fn figure(figure: &Figure) -> Markup {
    let (Some((start, _)), Some((end, _))) = (figure.points.first(), figure.points.last()) else { return html! {} };
    let zones = figure.zones();
    let known = figure.points.iter().flat_map(|(_, values)| values.values().copied());
    let most = known.chain(figure.expected).fold(0.0, f64::max);
    let ticks = unit(&figure.measure).ticks(most, 4);
    let top = ticks.last().map_or(1.0, |(value, _)| *value);
    let x = Scale::time(*start, *end, (LEFT, RIGHT));
    let y = Scale { values: (0.0, top), pixels: (BOTTOM, TOP) };
    let curve = |zone: &Zone| {
        path(figure.points.iter().map(|(time, values)| values.get(zone).map(|v| (x.at_time(*time), y.at(*v)))))
    };
    let moment = x.at_time(figure.moment);
    let caption = words::caption(figure);
    // At the right edge there is room on the left alone.
    let anchor = if moment > RIGHT - 30.0 { "end" } else { "middle" };
    html! {
        figure {
            figcaption { (caption) }
            svg.plot viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img"
                aria-label=(words::described(figure, &caption)) {
                @if let Some(from) = figure.judged_from {
                    @let from = x.at_time(from);
                    rect.judged x=(px(from)) width=(px(moment - from)) y=(px(TOP)) height=(px(BOTTOM - TOP)) {}
                }
                (value_axis(&y, &ticks, (LEFT, RIGHT)))
                (time_axis(&x, &time_ticks(*start, *end, 6), (TOP, BOTTOM)))
                line.moment x1=(px(moment)) x2=(px(moment)) y1=(px(TOP)) y2=(px(BOTTOM)) {}
                text.tick.strong x=(px(moment)) y=(px(TOP - 6.0)) text-anchor=(anchor) {
                    (figure.moment.strftime("%H:%M:%S"))
                }
                // The zone concerned comes first, and is drawn last.
                @for (at, zone) in zones.iter().enumerate().rev() {
                    path class=(format!("curve {}", look(figure, at, zone))) d=(curve(zone)) { title { (zone) } }
                }
                @if let Some(expected) = figure.expected {
                    @let at = px(y.at(expected));
                    line.expected x1=(px(LEFT)) x2=(px(RIGHT)) y1=(at) y2=(at) {}
                }
            }
        }
    }
}
