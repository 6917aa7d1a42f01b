//! The limit of detection delay, from the generator's own rates.
//!
//! Lorden (1971): no rule that raises a false alarm at most once in a run of G looks can expect to find a change sooner,
//! in the worst case, than after log(G) / I of them, where I is the Kullback-Leibler information that one look carries.
//! Here G is 30 days of scrapes of a zone, and I is that of every request of the services at fault: a multinomial over
//! durations' buckets, failures and refusals. Rates before and after are taken as known. `plain` takes requests as
//! independent; `dispersed` charges for the noise too: what is learnt within one of its correlation times can't exceed
//! what the noise itself reveals. The second is approximate, the two being joined like resistances in series.

use std::sync::Arc;

use super::scenario::{Effect, Fault, Limit, Scenario};
use super::truth::{STEP_S, Truth};

const RUN_S: f64 = 30.0 * 86_400.0;
/// After a fault's end, for which finding it still counts.
pub const GRACE_S: f64 = 120.0;

/// Seconds from the fault's start; `None` where no rule can find it in time.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Bound {
    pub plain_s: Option<f64>,
    pub dispersed_s: Option<f64>,
}

/// What is known of a fault by each step since its start.
struct Known {
    plain: Vec<f64>,
    dispersed: Vec<f64>,
}

pub fn bound(scenario: &Arc<Scenario>, fault: Fault) -> Bound {
    let known = known(scenario, fault);
    let cross = |information: &[f64]| crossing(information, fault, scenario.scrape_s as f64);
    Bound { plain_s: cross(&known.plain), dispersed_s: cross(&known.dispersed) }
}

fn known(scenario: &Arc<Scenario>, fault: Fault) -> Known {
    let concerns = |effect: &Effect| effect.zones == [fault.zone] || effect.to == [fault.zone];
    let lasts = |effect: &Effect| effect.limit == Limit::All && effect.end_s > fault.start_s;
    let mut sick = Truth::still(scenario, lasts);
    let mut well = Truth::still(scenario, |effect| lasts(effect) && !concerns(effect));
    let steps = (scenario.duration_s / STEP_S) as usize;
    let own: Vec<&Effect> = scenario.effects.iter().filter(|effect| concerns(effect) && lasts(effect)).collect();
    let mut sums = vec![0.0; scenario.services.len()];
    let mut known = Known { plain: vec![0.0; steps], dispersed: vec![0.0; steps] };
    for step in 0..steps {
        sick.advance();
        well.advance();
        let time_s = sick.time_s();
        if time_s <= fault.start_s {
            continue;
        }
        for (service, sum) in sums.iter_mut().enumerate() {
            let Some(effect) = own.iter().find(|effect| effect.touches_service(service)) else { continue };
            *sum += STEP_S * gained((&sick, &well), service, fault.zone, effect);
            let ceiling = ceiling(scenario, (service, effect), time_s - fault.start_s);
            known.plain[step] += *sum;
            known.dispersed[step] += 1.0 / (1.0 / *sum + 1.0 / ceiling);
        }
    }
    known
}

/// Information per second: where calls fail to connect, only clients have it.
fn gained((sick, well): (&Truth, &Truth), service: usize, zone: usize, effect: &Effect) -> f64 {
    if effect.connect_failures == 0.0 {
        return divergence(&sick.served[service][zone].rates(), &well.served[service][zone].rates());
    }
    let clients = (0..sick.called[service].len()).filter(|it| effect.zones.is_empty() || effect.zones.contains(it));
    let split = |[all, failed]: [f64; 2]| [all - failed, failed];
    clients.map(|it| divergence(&split(sick.called[service][it]), &split(well.called[service][it]))).sum()
}

fn divergence(after: &[f64], before: &[f64]) -> f64 {
    let (all, usual): (f64, f64) = (after.iter().sum(), before.iter().sum());
    let term = |(now, then): (&f64, &f64)| {
        let (now, then) = (now / all, (then / usual).max(1e-12));
        if now > 0.0 { now * (now / then).ln() } else { 0.0 }
    };
    if all <= 0.0 || usual <= 0.0 { 0.0 } else { (all * after.iter().zip(before).map(term).sum::<f64>()).max(0.0) }
}

/// What the noise lets anyone know of an effect after so many seconds.
fn ceiling(scenario: &Scenario, (service, effect): (usize, &Effect), elapsed_s: f64) -> f64 {
    let noise = &scenario.noise;
    let failing = effect.errors.max(effect.connect_failures);
    let (once, correlation) = if effect.tail_share > 0.0 {
        (f64::INFINITY, noise.latency_correlation)
    } else if failing > 0.0 {
        let wide = scenario.effects.iter().filter(|it| it.zones.len() != 1 && it.touches_service(service));
        let usual = wide.map(|it| it.errors).fold(scenario.services[service].errors, f64::max);
        let ratio = failing / usual;
        (noise.error_shape * (ratio - 1.0 - ratio.ln()), noise.error_correlation)
    } else {
        (0.5 * (effect.slowdown.ln() / noise.latency.as_fraction()).powi(2), noise.latency_correlation)
    };
    once.max(1e-12) * (1.0 + elapsed_s / (2.0 * correlation.as_secs_f64()))
}

/// When what was scraped suffices. Information waits for the next scrape, half an interval on average as pods have phases
/// of their own, and then half of a cycle for the next look.
fn crossing(information: &[f64], fault: Fault, scrape_s: f64) -> Option<f64> {
    let threshold = (RUN_S / scrape_s).ln();
    let width = (scrape_s / STEP_S) as usize;
    let scraped = |step: usize| -> f64 {
        let from = (step + 1).saturating_sub(width);
        information[from..=step].iter().sum::<f64>() / width as f64
    };
    let step = (0..information.len()).find(|step| scraped(*step) >= threshold)?;
    let at_s = ((step + 1) as f64 * STEP_S - fault.start_s).max(0.0) + scrape_s / 2.0;
    (at_s <= fault.end_s - fault.start_s + GRACE_S).then_some(at_s)
}
