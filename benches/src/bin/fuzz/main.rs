//! Mutated and random inputs for everything that reads what a stranger wrote: the tokenizer, the grammar and its
//! suggestions, ranges, netspecs, diskspecs, field values, filters, the codec of the socket, experiment files.
//!
//! `fuzz COUNT [SEED]`. Equal seeds give equal inputs. An input that panics, breaks an invariant (see `targets`) or takes
//! longer than [`PATIENCE`] ends the run with status 1, and is printed. Measures the library itself, unlike the other
//! programs here: what one input does is too little to be seen from outside.

mod corpus;
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use corpus::{Corpus, Random};
use targets::{Context, TARGETS};

/// An input that takes longer than this counts as a hang.
const PATIENCE: Duration = Duration::from_secs(10);

/// The input that is being tried.
static CURRENT: AtomicU64 = AtomicU64::new(0);

/// What is known of one target.
#[derive(Default)]
struct Figures {
    inputs: u64,
    bytes: u64,
    accepted: u64,
    time: Duration,
    longest: Duration,
    longest_bytes: usize,
    /// How the one begins that took longest.
    slowest: String,
    largest: usize,
}

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let count: u64 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(10_000_000);
    let seed: u64 = arguments.next().and_then(|n| n.parse().ok()).unwrap_or(0x006d_6567_6166_6f72);
    println!("seed: {seed}, inputs: {count}");
    watch();
    let (corpus, context) = (Corpus::new(), Context::new());
    let mut figures: Vec<Figures> = TARGETS.iter().map(|_| Figures::default()).collect();
    let start = Instant::now();
    // What panics is printed below, with its input.
    std::panic::set_hook(Box::new(|_| {}));
    for index in 0..count {
        CURRENT.store(index, Ordering::Relaxed);
        let mut random = Random::new(seed, index);
        let target = TARGETS.iter().position(|t| index % 100 < t.until).expect("the last target goes to 100");
        let input = corpus.input(&mut random, TARGETS[target].kind);
        let begin = processor();
        let result = catch_unwind(AssertUnwindSafe(|| (TARGETS[target].run)(&context, &input, &mut random)));
        let took = processor() - begin;
        let problem = match result {
            Ok(Ok(accepted)) => {
                let f = &mut figures[target];
                f.inputs += 1;
                f.bytes += input.len() as u64;
                f.accepted += u64::from(accepted);
                f.time += took;
                f.largest = f.largest.max(input.len());
                if took > f.longest {
                    (f.longest, f.longest_bytes) = (took, input.len());
                    f.slowest = String::from_utf8_lossy(&input).escape_debug().take(60).collect();
                }
                continue;
            }
            Ok(Err(problem)) => problem,
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                format!(
                    "panic: {}",
                    text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default()
                )
            }
        };
        println!("FAILED: target {}, seed {seed}, input {index}: {problem}", TARGETS[target].name);
        println!("{:?}", String::from_utf8_lossy(&input));
        return ExitCode::FAILURE;
    }
    let elapsed = start.elapsed();
    println!(
        "{:<8} {:>10} {:>9} {:>8} {:>11} {:>10} {:>8}  the slowest begins",
        "target", "inputs", "accepted", "mean us", "longest ms", "its bytes", "largest"
    );
    for (target, f) in TARGETS.iter().zip(&figures) {
        println!(
            "{:<8} {:>10} {:>8.1}% {:>8.1} {:>11.2} {:>10} {:>8}  {}",
            target.name,
            f.inputs,
            f.accepted as f64 * 100.0 / f.inputs.max(1) as f64,
            f.time.as_secs_f64() * 1e6 / f.inputs.max(1) as f64,
            f.longest.as_secs_f64() * 1e3,
            f.longest_bytes,
            f.largest,
            f.slowest,
        );
    }
    let bytes: u64 = figures.iter().map(|f| f.bytes).sum();
    println!(
        "{count} inputs, {} MB, in {:.0} s: no panic, no hang (limit {} s each), no broken invariant",
        bytes / 1_000_000,
        elapsed.as_secs_f64(),
        PATIENCE.as_secs()
    );
    ExitCode::SUCCESS
}

/// How long this thread has computed: unlike the clock's time, it does not grow while others compute.
fn processor() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).expect("Linux has this clock").into()
}

/// End the program when one input takes too long.
fn watch() {
    std::thread::spawn(|| {
        let (mut seen, mut since) = (u64::MAX, Instant::now());
        loop {
            std::thread::sleep(Duration::from_millis(200));
            let current = CURRENT.load(Ordering::Relaxed);
            if current != seen {
                (seen, since) = (current, Instant::now());
            } else if since.elapsed() > PATIENCE {
                println!("FAILED: input {current} takes longer than {} s", PATIENCE.as_secs());
                std::process::exit(1);
            }
        }
    });
}
