using System;
using System.Collections.Generic;
using System.Threading;
using System.Threading.Tasks;

namespace RocmForge
{
    /// <summary>
    /// A generation, as pieces of text that are whole characters and never empty. The work is done on the thread pool
    /// while the stream is read: a reader that runs there itself does it in its own thread, any other is never blocked.
    /// Reading a stream a second time begins anew.
    /// </summary>
    public sealed class PieceStream : IAsyncEnumerable<string>
    {
        private readonly Session session;
        private readonly CancellationToken cancellation;
        private readonly Action<CancellationToken> begin;

        internal PieceStream(Session session, CancellationToken cancellation, Action<CancellationToken> begin)
        {
            this.session = session;
            this.cancellation = cancellation;
            this.begin = begin;
        }

        /// <summary>Begins to read. Either cancellation, this one and the stream's own, ends it.</summary>
        public IAsyncEnumerator<string> GetAsyncEnumerator(CancellationToken cancellationToken = default)
        {
            return new Reader(session, begin, cancellation, cancellationToken);
        }

        /// <summary>
        /// Gives each piece to <paramref name="onPiece"/>, in the caller's synchronisation context: what
        /// <c>await foreach</c> does, for compilers that do not have it.
        /// </summary>
        public async Task ForEachAsync(Action<string> onPiece)
        {
            if (onPiece == null) throw new ArgumentNullException(nameof(onPiece));
            IAsyncEnumerator<string> reader = GetAsyncEnumerator();
            try
            {
                while (await reader.MoveNextAsync()) onPiece(reader.Current);
            }
            finally
            {
                await reader.DisposeAsync();
            }
        }

        /// <summary>By hand and not an async iterator, which Mono's compiler does not have.</summary>
        private sealed class Reader : IAsyncEnumerator<string>
        {
            private readonly Session session;
            private readonly Action<CancellationToken> begin;
            private readonly CancellationTokenSource linked;
            private readonly CancellationToken cancellation;
            private readonly Func<bool> step;
            private bool begun;
            private bool ended;

            internal Reader(Session session, Action<CancellationToken> begin, CancellationToken first,
                CancellationToken second)
            {
                this.session = session;
                this.begin = begin;
                if (first.CanBeCanceled && second.CanBeCanceled && first != second)
                    linked = CancellationTokenSource.CreateLinkedTokenSource(first, second);
                cancellation = linked != null ? linked.Token : first.CanBeCanceled ? first : second;
                step = Step;
            }

            public string Current { get; private set; }

            public ValueTask<bool> MoveNextAsync()
            {
                if (ended) return new ValueTask<bool>(false);
                if (!begun || !IsPoolsOwn) return new ValueTask<bool>(Task.Run(step, cancellation));
                // The caller is where the work would be done: going to another thread and back for each token would
                // only cost time, much of it where the machine has other work.
                try
                {
                    return new ValueTask<bool>(Step());
                }
                catch (Exception e)
                {
                    return new ValueTask<bool>(Task.FromException<bool>(e));
                }
            }

            /// <summary>Whether the caller is a thread of the pool that nobody's scheduling waits for.</summary>
            private static bool IsPoolsOwn => Thread.CurrentThread.IsThreadPoolThread
                && SynchronizationContext.Current == null && TaskScheduler.Current == TaskScheduler.Default;

            public ValueTask DisposeAsync()
            {
                ended = true;
                linked?.Dispose();
                return default;
            }

            private bool Step()
            {
                if (!begun) begin(cancellation);
                begun = true;
                while (!ended)
                {
                    Piece piece = session.Next(cancellation);
                    ended = piece.IsLast;
                    if (piece.Text.Length == 0) continue;
                    Current = piece.Text;
                    return true;
                }
                Current = null;
                return false;
            }
        }
    }
}
