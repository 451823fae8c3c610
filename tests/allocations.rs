//! Number of heap blocks that a cached check allocates, from bytes to bytes. It has a program of its own, because the
//! allocator counts for the whole process.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic fails the test")]

use dhat::{Alloc, HeapStats, Profiler};
use prost::Message;

use crate::authorizer::{authorizer, checks, revocations, runtime, tokens};
use crate::browser_request::check_request;

#[path = "../benches/support/authorizer.rs"]
#[expect(dead_code, reason = "the benchmarks use the rest")]
mod authorizer;
#[path = "../benches/support/request.rs"]
mod browser_request;
#[path = "support/token.rs"]
#[expect(dead_code, reason = "the integration tests use the rest")]
mod token;

#[global_allocator]
static ALLOCATOR: Alloc = Alloc;

/// Maximum number of blocks for a check. Lower it when a change needs fewer.
const MAX_BLOCKS: u64 = 1;
/// Number of checks that are counted. The cache allocates something once in many of them, which the average leaves out.
const CHECKS: u64 = 200;

#[test]
fn a_cached_check_stays_within_its_number_of_heap_blocks() {
    let check = checks(authorizer(None, revocations(0)));
    let message = check_request(&tokens(1)[0]).encode_to_vec();
    runtime().block_on(async {
        // The first checks fill the cache, and make what is made once.
        for _ in 0..CHECKS {
            check(&message).await;
        }
        let _counting = Profiler::builder().testing().build();
        for _ in 0..CHECKS {
            check(&message).await;
        }
        let blocks = HeapStats::get().total_blocks;
        println!("{blocks} heap blocks in {CHECKS} cached checks");
        let each = blocks / CHECKS;
        assert!(each <= MAX_BLOCKS, "a cached check allocates {each} heap blocks, more than {MAX_BLOCKS}");
    });
}
