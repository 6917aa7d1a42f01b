//! `make soak`: an hour on real parts that are killed and restarted at random, or thirty days in the embedded world. Faults
//! that must be found, and troubles that must not be acted on, come in an order that a seed draws; what was done is judged
//! from the journal, and from outside.

mod account;
mod growth;
mod plan;
#[path = "../../../benches/scale/process.rs"]
mod process;
mod real;
mod simulated;

use clap::Parser;
use zoneward::domain::Period;

#[derive(Debug, Parser)]
#[command(name = "soak")]
struct Arguments {
    /// So long on real parts, such as 60m; or `simulated`
    what: String,
    /// Draws everything; chosen and printed without
    #[arg(long)]
    seed: Option<u64>,
    /// Of the embedded world
    #[arg(long, default_value_t = 30)]
    days: i64,
}

pub fn run(arguments: &[String]) {
    let arguments = Arguments::parse_from(std::iter::once("soak".to_owned()).chain(arguments.iter().cloned()));
    let seed = arguments.seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
    println!("soak {}, seed {seed}", arguments.what);
    let problems = if arguments.what == "simulated" {
        simulated::soak(arguments.days, seed)
    } else {
        let length: Period = arguments.what.parse().unwrap_or_else(|problem: String| panic!("{problem}"));
        real::soak(length.signed().as_secs(), seed)
    };
    for problem in &problems {
        println!("WRONG: {problem}");
    }
    assert!(problems.is_empty(), "{} of what was promised was broken", problems.len());
    println!("nothing was missed, nothing isolated without a fault, nothing grew");
}
