//! What came of each trouble, and what should not have come.

use jiff::Timestamp;
use zoneward::domain::{Event, Record};

use super::plan::Trouble;

/// An entry of the journal that says what became of a zone, in seconds of the story.
#[derive(Debug, Clone)]
pub struct Entry {
    pub at: f64,
    pub event: String,
    pub zone: String,
    pub message: String,
}

impl Entry {
    /// Of such as are judged here.
    pub fn of(record: &Record, start: Timestamp) -> Option<Self> {
        let told = [
            Event::Isolate,
            Event::Refused,
            Event::Reclassified,
            Event::Ineffective,
            Event::RolledBack,
            Event::Relapsed,
            Event::Restored,
        ];
        told.contains(&record.event).then(|| Self {
            at: record.time.duration_since(start).as_secs_f64(),
            event: record.event.to_string(),
            zone: record.zone.as_ref().map(ToString::to_string).unwrap_or_default(),
            message: record.message.clone(),
        })
    }
}

/// When a part that finding or giving back takes was gone.
#[derive(Debug, Clone, Copy)]
pub struct Outage {
    pub from: f64,
    pub to: f64,
}

/// How soon is soon enough, in seconds without outages.
pub struct Bounds {
    /// From a fault's begin until its zone is isolated.
    pub found: f64,
    /// From its end until its zone is given back.
    pub back: f64,
    /// What an outage costs beside its length.
    pub recovery: f64,
}

/// What came of all of them.
#[derive(Debug, Default)]
pub struct Account {
    pub delays: Vec<f64>,
    pub returns: Vec<f64>,
    pub faults: usize,
    /// Over before they could be seen, because of outages.
    pub unseen: usize,
    pub harmless: usize,
    pub relapses: usize,
    pub problems: Vec<String>,
    /// One line for each fault.
    pub lines: Vec<String>,
}

/// Seconds between two moments in which everything was there that it takes.
fn whole(from: f64, to: f64, outages: &[Outage], recovery: f64) -> f64 {
    let mut gone: Vec<(f64, f64)> =
        outages.iter().map(|it| (it.from.max(from), (it.to + recovery).min(to))).filter(|(a, b)| a < b).collect();
    gone.sort_by(|a, b| a.0.total_cmp(&b.0));
    let (mut left, mut counted) = (to - from, from);
    for (begin, end) in gone {
        left -= (end - begin.max(counted)).max(0.0);
        counted = counted.max(end);
    }
    left.max(0.0)
}

pub fn judge(troubles: &[Trouble], entries: &[Entry], outages: &[Outage], bounds: &Bounds) -> Account {
    let mut account =
        Account { harmless: troubles.iter().filter(|it| it.must.is_none()).count(), ..Account::default() };
    let whole = |from: f64, to: f64| whole(from, to, outages, bounds.recovery);
    let mut explained = vec![false; entries.len()];
    for trouble in troubles {
        let Some(zone) = &trouble.must else { continue };
        account.faults += 1;
        let (at, until) = (trouble.at as f64, trouble.until as f64);
        let of = |event: &str, from: f64| {
            entries.iter().enumerate().find(|(_, it)| it.event == event && it.zone == *zone && it.at >= from)
        };
        let line = |what: &str| format!("{at:>8.0} {:>6.0}  {:<12} {:<55} {what}", until - at, zone, trouble.title);
        let found = of("isolate", at).filter(|(_, it)| whole(until, it.at) <= bounds.found);
        let Some((nth, isolate)) = found else {
            let seen = whole(at, until);
            if seen >= bounds.found {
                account.problems.push(format!("missed: at {at:.0} s, {} (seen for {seen:.0} s)", trouble.title));
                account.lines.push(line("MISSED"));
            } else {
                account.unseen += 1;
                account.lines.push(line(&format!("seen for {seen:.0} s only, because of outages")));
            }
            continue;
        };
        explained[nth] = true;
        let (delay, net) = (isolate.at - at, whole(at, isolate.at));
        account.delays.push(delay);
        if net > bounds.found {
            let problem = format!("late: at {at:.0} s, {}: {delay:.0} s, {net:.0} s of them whole", trouble.title);
            account.problems.push(problem);
        }
        let Some((_, restored)) = of("restored", isolate.at) else {
            account.problems.push(format!("never given back: {zone}, isolated at {:.0} s", isolate.at));
            account.lines.push(line(&format!("found after {delay:.0} s, never given back")));
            continue;
        };
        let relapses = entries
            .iter()
            .filter(|it| it.event == "relapsed" && it.zone == *zone && (isolate.at..restored.at).contains(&it.at))
            .count();
        account.relapses += relapses;
        let (back, net) = (restored.at - until, whole(until.max(isolate.at), restored.at));
        account.returns.push(back);
        if net > bounds.back {
            let problem = format!("given back late: {zone}, {back:.0} s after its fault, {net:.0} s of them whole");
            account.problems.push(problem);
        }
        if back < 0.0 {
            account.problems.push(format!("given back {:.0} s before its fault was over: {zone}", -back));
        }
        account
            .lines
            .push(line(&format!("found after {delay:>3.0} s, back {back:>4.0} s after it, {relapses} relapses")));
    }
    for (entry, explained) in entries.iter().zip(explained) {
        let wrong = match entry.event.as_str() {
            "isolate" => !explained,
            "rolled_back" | "reclassified" | "refused" | "ineffective" => true,
            _ => false,
        };
        if wrong {
            let (event, at) = (&entry.event, entry.at);
            account.problems.push(format!("{event} at {at:.0} s, without a reason: {}: {}", entry.zone, entry.message));
        }
    }
    account
}

/// Median and longest.
pub fn spread(values: &[f64]) -> String {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    match (sorted.get(sorted.len() / 2), sorted.last()) {
        (Some(median), Some(most)) => format!("median {median:.0} s, longest {most:.0} s"),
        _ => "none".to_owned(),
    }
}

impl Account {
    pub fn print(&self) {
        println!(
            "      at  lasts  zone         what                                                    what came of it"
        );
        self.lines.iter().for_each(|line| println!("{line}"));
        let found = self.delays.len();
        println!(
            "{} faults: {found} found, {} over before they could be seen because of outages, {} missed",
            self.faults,
            self.unseen,
            self.faults - found - self.unseen
        );
        println!("{} troubles that must not be acted on", self.harmless);
        println!("found after: {}", spread(&self.delays));
        println!("given back after the fault: {}; {} relapses", spread(&self.returns), self.relapses);
    }
}
