//! Whether something grows, whatever it does in between.

/// How much the values grew over all of the times: Theil and Sen's line, the median of the slopes between any two points, as
/// a third of the points may lie anywhere without moving it.
pub fn growth(points: &[(f64, f64)]) -> f64 {
    let pairs = points.iter().enumerate().flat_map(|(nth, a)| points[nth + 1..].iter().map(move |b| (a, b)));
    let mut slopes: Vec<f64> = pairs.filter(|(a, b)| b.0 > a.0).map(|(a, b)| (b.1 - a.1) / (b.0 - a.0)).collect();
    slopes.sort_by(f64::total_cmp);
    match (points.first(), points.last(), slopes.get(slopes.len() / 2)) {
        (Some(first), Some(last), Some(slope)) => slope * (last.0 - first.0),
        _ => 0.0,
    }
}

/// Says how something went, and what is wrong with it if it grew by more than is allowed.
pub fn judge(what: &str, points: &[(f64, f64)], allowed: f64) -> (String, Option<String>) {
    let grown = growth(points);
    let problem = format!("{what} grew by {grown:.1}, more than {allowed:.1}");
    (format!("{grown:+.2}"), (grown > allowed).then_some(problem))
}
