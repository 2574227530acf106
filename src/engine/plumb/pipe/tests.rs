//! Delivery, without programs.

use super::*;

fn pipe() -> Arc<Pipe> {
    Arc::new(Pipe::new(PipeName::whole("minimega//p").unwrap()))
}

/// What waits for a reader now.
fn waiting(reader: &mut Reader) -> Vec<String> {
    let mut found = Vec::new();
    while let Ok(item) = reader.queue.try_recv() {
        reader.taken.fetch_add(Inbox::cost(&item.message).into(), Ordering::Relaxed);
        found.push(String::from_utf8_lossy(&item.message).into_owned());
    }
    found
}

#[tokio::test]
async fn a_text_is_as_many_messages_as_it_has_lines() {
    let pipe = pipe();
    let mut reader = pipe.reader(Kind::Client);
    for text in ["a", "b\n", "c\n\nd", "\n", ""] {
        pipe.write(text.as_bytes()).await.unwrap();
    }
    assert_eq!(waiting(&mut reader), ["a", "b", "c", "", "d", "", ""]);
    let info = pipe.info();
    assert_eq!((info.count, info.readers, info.writers, info.previous.as_str()), (7, 1, 0, ""));
    pipe.write(&vec![b'x'; MAX_MESSAGE + 1]).await.unwrap();
    assert_eq!(waiting(&mut reader).iter().map(String::len).collect::<Vec<_>>(), [MAX_MESSAGE, 1]);
}

#[tokio::test]
async fn the_mode_says_who_gets_a_message() {
    let pipe = pipe();
    let mut readers: Vec<Reader> = (0..3).map(|_| pipe.reader(Kind::Pipeline)).collect();
    let mut after = async |mode| {
        pipe.set_mode(mode);
        for number in 0..30 {
            pipe.write(number.to_string().as_bytes()).await.unwrap();
        }
        readers.iter_mut().map(waiting).collect::<Vec<_>>()
    };
    let all: Vec<String> = (0..30).map(|number| number.to_string()).collect();
    assert_eq!(after(Mode::All).await, vec![all.clone(); 3]);
    let turns = after(Mode::RoundRobin).await;
    assert!(
        turns
            .iter()
            .enumerate()
            .all(|(index, got)| *got == all[index..].iter().step_by(3).cloned().collect::<Vec<_>>())
    );
    let mut random: Vec<String> = after(Mode::Random).await.concat();
    random.sort_by_key(|text| text.parse::<u32>().unwrap());
    assert_eq!(random, all, "each went to one reader");
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_takes_nothing_is_waited_for_once_and_then_misses_messages() {
    let pipe = pipe();
    let (mut stuck, mut quick) = (pipe.reader(Kind::Pipeline), pipe.reader(Kind::Pipeline));
    let message = vec![b'x'; MAX_MESSAGE];
    let fits = QUEUE / (MAX_MESSAGE + OVERHEAD);
    for _ in 0..fits {
        pipe.write(&message).await.unwrap();
    }
    waiting(&mut quick);
    let start = Instant::now();
    pipe.write(&message).await.unwrap();
    assert_eq!(start.elapsed(), Kind::Pipeline.patience());
    for _ in 0..100 {
        pipe.write(b"short, but after one that was dropped it may go in").await.unwrap();
        pipe.write(&message).await.unwrap();
        waiting(&mut quick);
    }
    assert_eq!(start.elapsed(), Kind::Pipeline.patience(), "nobody waits a second time");
    waiting(&mut stuck);
    pipe.write(b"again").await.unwrap();
    assert_eq!((waiting(&mut stuck).as_slice(), waiting(&mut quick).len()), (["again".to_owned()].as_slice(), 1));
}

#[tokio::test(start_paused = true)]
async fn a_pipeline_that_takes_something_sets_the_pace_and_a_client_must_not_be_too_slow() {
    for (kind, millis, lost) in [(Kind::Pipeline, 4900, false), (Kind::Client, 900, false), (Kind::Client, 4900, true)]
    {
        let pipe = pipe();
        let mut reader = pipe.reader(kind);
        let slow = tokio::spawn(async move {
            let mut count = 0;
            while reader.recv().await.is_some() {
                tokio::time::sleep(Duration::from_millis(millis)).await;
                count += 1;
            }
            count
        });
        for _ in 0..20 {
            pipe.write(&vec![b'x'; MAX_MESSAGE]).await.unwrap();
        }
        pipe.close();
        assert_eq!(slow.await.unwrap() < 20, lost, "{kind:?} {millis}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_reader_is_passed_over_while_another_has_room() {
    let pipe = pipe();
    pipe.set_mode(Mode::RoundRobin);
    let _stuck = pipe.reader(Kind::Pipeline);
    let mut quick = pipe.reader(Kind::Pipeline);
    let start = Instant::now();
    let mut got = 0;
    for _ in 0..20 {
        pipe.write(&vec![b'x'; MAX_MESSAGE]).await.unwrap();
        got += waiting(&mut quick).len();
    }
    assert_eq!((got, start.elapsed()), (20 - QUEUE / (MAX_MESSAGE + OVERHEAD), Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_leaves_lets_a_waiting_writer_go() {
    let pipe = pipe();
    let reader = pipe.reader(Kind::Pipeline);
    let leave = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(reader);
    };
    let start = Instant::now();
    let write = async {
        for _ in 0..10 {
            pipe.write(&vec![b'x'; MAX_MESSAGE]).await.unwrap();
        }
        start.elapsed()
    };
    assert_eq!(tokio::join!(write, leave).0, Duration::from_millis(100));
    assert_eq!(pipe.info().readers, 0);
}

#[tokio::test]
async fn a_reader_that_is_ended_gets_what_waits_and_a_closed_pipe_refuses() {
    let pipe = pipe();
    let mut reader = pipe.reader(Kind::Client);
    let writer = pipe.writer();
    writer.write(b"1\n2").await.unwrap();
    reader.end().close();
    writer.write(b"3").await.unwrap();
    assert_eq!(&*reader.recv().await.unwrap(), b"1");
    assert_eq!(&*reader.recv().await.unwrap(), b"2");
    assert!(reader.recv().await.is_none());
    assert_eq!((pipe.info().readers, pipe.info().writers), (0, 1));
    drop(writer);
    assert_eq!(pipe.info().writers, 0);

    let mut last = pipe.reader(Kind::Client);
    pipe.write(b"4").await.unwrap();
    pipe.close();
    assert!(matches!(pipe.write(b"5").await, Err(PlumbError::Cleared { .. })));
    assert_eq!(&*last.recv().await.unwrap(), b"4");
    assert!(last.recv().await.is_none());
    assert!(pipe.reader(Kind::Client).recv().await.is_none());
}
