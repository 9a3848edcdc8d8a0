//! The journal and the segments of one core together, on a simulated disk: power and processes fail at any moment.

mod crash_loop;
mod evidence;
mod faults;
mod full_disk;
mod lost_tables;
mod outside;
mod reclaim;
mod relaxed;
mod retries;
mod rules;
mod seeded_bugs;
mod support;
mod unread;
mod vanished;
