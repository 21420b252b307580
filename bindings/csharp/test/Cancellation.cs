// Work that is stopped, sessions that are used twice, and what a token costs.
using System;
using System.Collections.Generic;
using System.Diagnostics;
using System.Linq;
using System.Threading;
using System.Threading.Tasks;
using RocmForge;

static partial class Tests
{
    /// <summary>Milliseconds within which a cancelled call has to be back.</summary>
    private const double CancelLimit = 100;

    private static string LongText => string.Join(" ", Enumerable.Repeat("The quick brown fox jumps over it.", 200));

    /// <summary>Cancels some work after a while, from another thread; milliseconds until it is back.</summary>
    private static double TimeToCancel(int afterMs, Action<CancellationToken> work)
    {
        using (var source = new CancellationTokenSource())
        {
            long cancelled = 0;
            var canceller = new Thread(() =>
            {
                Thread.Sleep(afterMs);
                cancelled = Stopwatch.GetTimestamp();
                source.Cancel();
            });
            canceller.Start();
            Check.Throws<OperationCanceledException>(() => work(source.Token));
            long back = Stopwatch.GetTimestamp();
            canceller.Join();
            return 1e3 * (back - cancelled) / Stopwatch.Frequency;
        }
    }

    private static void RunCancellation()
    {
        Check.Test("a stream is cancelled midway, and its session goes on", () =>
        {
            using (Session session = NewSession())
            {
                // Computed before, so that every chat finds it so: many tokens at once may be rounded otherwise than few.
                ReadAll(session.Chat(Ask(Question), Greedily(1)));
                string whole = ReadAll(session.Chat(Ask(Question), Greedily(48)));
                var times = new List<double>();
                for (int i = 0; i < 8; i++)
                {
                    int pieces = 0;
                    double time = TimeToCancel(100 + 17 * i, stop => session.Chat(Ask(Question),
                        Greedily(1900), cancellation: stop).ForEachAsync(piece => pieces++).GetAwaiter().GetResult());
                    Check.True(pieces > 0, "cancelled before the first piece");
                    times.Add(time);
                }
                times.Sort();
                string all = string.Join(", ", times.Select(time => time.ToString("F1")));
                Check.Note("back after " + all + " ms");
                // All but one: on a machine with other work a thread may wait that long for a processor.
                Check.True(times[times.Count - 2] < CancelLimit, "back after " + all + " ms");
                Check.Equal(whole, ReadAll(session.Chat(Ask(Question), Greedily(48))), "answer after cancellation");
            }
        });
        Check.Test("a cancelled generation goes on where it was", () =>
        {
            using (Session session = NewSession())
            {
                ReadAll(session.Chat(Ask(Question), Greedily(1))); // as above
                string whole = ReadAll(session.Chat(Ask(Question), Greedily(48))), text = "";
                using (var stop = new CancellationTokenSource())
                {
                    Check.Throws<OperationCanceledException>(() => session.Chat(Ask(Question), Greedily(48),
                        cancellation: stop.Token).ForEachAsync(piece =>
                        {
                            text += piece;
                            if (text.Length > 20) stop.Cancel();
                        }).GetAwaiter().GetResult());
                }
                for (Piece piece = session.Next(); ; piece = session.Next())
                {
                    text += piece.Text;
                    if (piece.IsLast) break;
                }
                Check.Equal(whole, text, "answer in two parts");
            }
        });
        Check.Test("a long prompt is cancelled, and changes nothing", () =>
        {
            using (Session session = NewSession())
            {
                uint[] tokens = model.Tokenize(LongText);
                Check.True(tokens.Length > 1000 && tokens.Length < 2000, tokens.Length + " tokens");
                session.Decode(model.Tokenize("Hello"));
                float[] logits = session.Logits;
                int used = session.Used;
                double time = TimeToCancel(20, stop => session.Decode(tokens, stop));
                Check.Note("back after " + time.ToString("F1") + " ms");
                Check.True(time < CancelLimit, "back after " + time + " ms");
                Check.Equal(used, session.Used, "tokens that the session holds");
                Check.True(session.Logits.SequenceEqual(logits), "the logits changed");
                session.Decode(tokens);
                Check.Equal(used + tokens.Length, session.Used, "tokens after going on");
            }
        });
        Check.Test("cancelled before it began, and by the reader's own token", () =>
        {
            using (Session session = NewSession())
            using (var stop = new CancellationTokenSource())
            using (var other = new CancellationTokenSource())
            {
                IAsyncEnumerator<string> reader = session.Chat(Ask(Question), Greedily(48), cancellation: other.Token)
                    .GetAsyncEnumerator(stop.Token);
                Check.True(reader.MoveNextAsync().AsTask().Result && reader.Current.Length > 0, "no first piece");
                stop.Cancel();
                Check.Throws<OperationCanceledException>(() =>
                    reader.MoveNextAsync().AsTask().GetAwaiter().GetResult());
                reader.DisposeAsync().AsTask().Wait();
                int used = session.Used;
                Check.Throws<OperationCanceledException>(() => session.Decode(new uint[] { 1 }, stop.Token));
                Check.Equal(used, session.Used, "tokens that the session holds");
                session.Decode(new uint[] { 1 }, other.Token);
            }
        });
        Check.Test("readers outside the thread pool are not blocked", DoesNotBlock);
        Check.Test("a second thread is refused while a session works", RefusesSecondThread);
        Check.Test("disposing ends the work", () =>
        {
            Session session = NewSession();
            Task work = Task.Run(() => session.Decode(model.Tokenize(LongText)));
            Thread.Sleep(20);
            var time = Stopwatch.StartNew();
            session.Dispose();
            Check.Throws<OperationCanceledException>(() => work.GetAwaiter().GetResult());
            Check.True(time.Elapsed.TotalMilliseconds < CancelLimit, "back after " + time.ElapsedMilliseconds + " ms");
            Check.Throws<ObjectDisposedException>(() => session.Next());
        });
        Check.Test("a token costs less than 5 % more than its computation", MeasuresOverhead);
        Check.Test("the binding's own part of it", MeasuresCalls);
    }

    private static void DoesNotBlock()
    {
        using (Session session = NewSession())
        {
            session.Decode(model.Tokenize("Hello"));
            IAsyncEnumerator<string> reader = session.Generate(Greedily(48)).GetAsyncEnumerator();
            // A user interface's thread, one of the pool's that has a context, and one that has none.
            Check.True(!AllAtOnce(reader), "the caller's thread did the work");
            Check.True(Task.Run(() =>
            {
                SynchronizationContext.SetSynchronizationContext(new SynchronizationContext());
                try
                {
                    return !AllAtOnce(reader);
                }
                finally
                {
                    SynchronizationContext.SetSynchronizationContext(null);
                }
            }).Result, "a thread with a context did the work");
            Check.True(Task.Run(() => AllAtOnce(reader)).Result, "a thread of the pool did not do the work itself");
        }
    }

    /// <summary>Whether each of some pieces is there when the call returns: sometimes one is by chance.</summary>
    private static bool AllAtOnce(IAsyncEnumerator<string> reader)
    {
        int atOnce = 0;
        for (int i = 0; i < 10; i++)
        {
            ValueTask<bool> move = reader.MoveNextAsync();
            if (move.IsCompleted) atOnce++;
            Check.True(move.AsTask().GetAwaiter().GetResult(), "the stream ended");
        }
        return atOnce == 10;
    }

    private static void RefusesSecondThread()
    {
        using (Session session = NewSession())
        using (var stop = new CancellationTokenSource())
        {
            uint[] tokens = model.Tokenize(LongText);
            var started = new ManualResetEventSlim();
            Task work = Task.Run(() =>
            {
                started.Set();
                session.Decode(tokens, stop.Token);
            });
            started.Wait();
            RocmForgeException refused = null;
            // Until the other thread has really begun, there is nothing to refuse.
            while (refused == null && !work.IsCompleted)
            {
                Thread.Sleep(5);
                try
                {
                    GC.KeepAlive(session.Used);
                }
                catch (RocmForgeException e)
                {
                    refused = e;
                }
            }
            Check.True(refused != null, "never refused");
            Check.Equal(ErrorCode.Busy, refused.Code, refused.Message);
            refused = Check.Throws<RocmForgeException>(() => ReadAll(session.Generate()));
            Check.Equal(ErrorCode.Busy, refused.Code, refused.Message);
            stop.Cancel();
            // Refused calls take nothing from the one that works, not even its cancellation.
            Check.Throws<OperationCanceledException>(() => work.GetAwaiter().GetResult());
            Check.Equal(0, session.Used, "tokens that the session holds");
        }
    }

    /// <summary>
    /// The time of a stream beside the time that the library counted for computing the same tokens. Between them are
    /// the binding, and sampling and detokenizing. The best of some rounds: others use the processor too.
    /// </summary>
    private static void MeasuresOverhead()
    {
        using (Session session = NewSession())
        {
            double best = double.MaxValue, step = 0;
            for (int round = 0; round < 8; round++)
            {
                IAsyncEnumerator<string> reader = session.Chat(Ask(Question), Greedily(96)).GetAsyncEnumerator();
                reader.MoveNextAsync().AsTask().Wait(); // the prompt
                SessionStats before = session.Stats;
                var time = Stopwatch.StartNew();
                Drain(reader).Wait();
                double wall = time.Elapsed.TotalMilliseconds * 1e3;
                SessionStats after = session.Stats;
                double computed = after.DecodeMicroseconds - before.DecodeMicroseconds;
                double count = after.DecodeTokens - before.DecodeTokens;
                Check.True(count > 80, count + " tokens");
                if ((wall - computed) / computed >= best) continue;
                best = (wall - computed) / computed;
                step = computed / count;
            }
            Check.Note(string.Format("{0:F0} us, beside it {1:F1} us: {2:F2} %", step, best * step, 100 * best));
            Check.True(best < 0.05, 100 * best + " %");
        }
    }

    private static async Task Drain(IAsyncEnumerator<string> reader)
    {
        while (await reader.MoveNextAsync().ConfigureAwait(false)) GC.KeepAlive(reader.Current);
        await reader.DisposeAsync().ConfigureAwait(false);
    }

    /// <summary>
    /// Calls of a generation that has ended cost no computation: what is left is the binding's, and exact where the
    /// time of tokens depends on what else the machine does.
    /// </summary>
    private static void MeasuresCalls()
    {
        using (Session session = NewSession())
        using (var stop = new CancellationTokenSource())
        {
            ReadAll(session.Chat(Ask(Question), Greedily(48)));
            SessionStats stats = session.Stats;
            double step = (double)stats.DecodeMicroseconds / stats.DecodeTokens, best = double.MaxValue;
            for (int round = 0; round < 10; round++)
            {
                var time = Stopwatch.StartNew();
                for (int i = 0; i < 1000; i++) Check.True(session.Next(stop.Token).IsLast, "goes on");
                best = Math.Min(best, time.Elapsed.TotalMilliseconds);
            }
            Check.Note(string.Format("{0:F1} us of {1:F0} us: {2:F3} %", best, step, 100 * best / step));
            Check.True(best < 0.05 * step, best + " us");
        }
    }
}
