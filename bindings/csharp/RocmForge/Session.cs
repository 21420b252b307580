using System;
using System.Collections.Generic;
using System.Runtime.InteropServices;
using System.Threading;

namespace RocmForge
{
    /// <summary>
    /// One sequence of tokens over a model. It belongs to one thread or task at a time; a second one gets
    /// <see cref="ErrorCode.Busy"/>. Failed and cancelled calls leave it as it was, and it can go on.
    /// </summary>
    public sealed class Session : IDisposable
    {
        private static readonly Action<object> Raise = session => ((Session)session).RaiseCancel();

        private readonly Model model;
        private readonly SessionHandle handle;
        private readonly CancelTokenHandle cancel;
        private int busy;

        internal Session(Model model, SessionOptions options)
        {
            this.model = model;
            int status = Native.rf_cancel_token_create(out cancel, out IntPtr error);
            Interop.Check(status, error);
            var native = new rf_session_options { struct_size = Interop.SizeOf<rf_session_options>() };
            native.flags = (uint)options.Flags;
            native.context = checked((uint)options.Context);
            native.batch = checked((uint)options.Batch);
            using (var token = new Hold(cancel))
            {
                native.cancel = token.Address;
                status = Native.rf_session_create(model.Handle, ref native, out handle, out error);
            }
            handle.Callback = model.Handle.Callback;
            if (status < 0) cancel.Dispose();
            Interop.Check(status, error);
        }

        /// <summary>Why the last stream of this session ended.</summary>
        public FinishReason Finish { get; private set; }

        /// <summary>Tokens that the session holds.</summary>
        public int Used => Usage(out _);

        /// <summary>Tokens that fit.</summary>
        public int Capacity
        {
            get
            {
                Usage(out int capacity);
                return capacity;
            }
        }

        /// <summary>The tokens that the session holds.</summary>
        public uint[] Tokens
        {
            get
            {
                using (Enter(default)) return ReadTokens();
            }
        }

        /// <summary>The logits that follow the last token.</summary>
        public float[] Logits
        {
            get
            {
                using (Enter(default)) // the numbers are the session's
                {
                    int status = Native.rf_session_logits(handle, out IntPtr logits, out UIntPtr count,
                        out IntPtr error);
                    Interop.Check(status, error);
                    var copy = new float[Interop.Length(count)];
                    Marshal.Copy(logits, copy, 0, copy.Length);
                    return copy;
                }
            }
        }

        /// <summary>What the session has done.</summary>
        public SessionStats Stats
        {
            get
            {
                var native = new rf_session_stats { struct_size = Interop.SizeOf<rf_session_stats>() };
                using (Enter(default))
                    Interop.Check(Native.rf_session_get_stats(handle, ref native, out IntPtr error), error);
                return new SessionStats(native);
            }
        }

        /// <summary>
        /// Streams the model's answer to a conversation. Nothing happens until the stream is read; what the session
        /// holds already of the conversation is not computed again, anything else that it holds is dropped.
        /// </summary>
        public PieceStream Chat(IEnumerable<ChatMessage> messages, GenerateOptions options = null,
            ChatOptions chat = null, CancellationToken cancellation = default)
        {
            if (messages == null) throw new ArgumentNullException(nameof(messages));
            return Chat(ChatMessage.ToJson(messages), options, chat, cancellation);
        }

        /// <summary>The same for messages as a JSON array, which may have more than a role and a content.</summary>
        public PieceStream Chat(string messagesJson, GenerateOptions options = null, ChatOptions chat = null,
            CancellationToken cancellation = default)
        {
            return new PieceStream(this, cancellation, stop =>
            {
                string prompt = model.FormatChat(messagesJson, chat);
                Become(model.Tokenize(prompt, TokenizeFlags.AddSpecial | TokenizeFlags.Special), stop);
                Begin(options);
            });
        }

        /// <summary>Streams text from where the session stands.</summary>
        public PieceStream Generate(GenerateOptions options = null, CancellationToken cancellation = default)
        {
            return new PieceStream(this, cancellation, stop => Begin(options));
        }

        /// <summary>Appends tokens and computes the logits that follow the last of them; all or nothing.</summary>
        /// <exception cref="OperationCanceledException">It was cancelled.</exception>
        public void Decode(uint[] tokens, CancellationToken cancellation = default)
        {
            if (tokens == null) throw new ArgumentNullException(nameof(tokens));
            using (Enter(cancellation)) Append(tokens, cancellation);
        }

        /// <summary>Chooses a token from the logits. It is not appended: give it to <see cref="Decode"/>.</summary>
        public uint Sample(Sampler sampler = null)
        {
            using (Hold held = HoldOf(sampler))
            using (Enter(default))
            {
                IntPtr address = sampler == null ? IntPtr.Zero : held.Address;
                int status = Native.rf_session_sample(handle, address, out uint token, out IntPtr error);
                Interop.Check(status, error);
                return token;
            }
        }

        /// <summary>Begins a generation for <see cref="Next"/>, from where the session stands.</summary>
        public void Begin(GenerateOptions options = null)
        {
            options = options ?? new GenerateOptions();
            using (var arena = new Arena())
            using (Hold sampler = HoldOf(options.Sampler))
            using (Enter(default))
            {
                rf_generate_options native = options.ToNative(arena);
                if (options.Sampler != null) native.sampler = sampler.Address;
                Interop.Check(Native.rf_session_begin(handle, ref native, out IntPtr error), error);
            }
        }

        /// <summary>The next token and its text.</summary>
        /// <exception cref="OperationCanceledException">It was cancelled; the generation can go on.</exception>
        public Piece Next(CancellationToken cancellation = default)
        {
            var native = new rf_piece { struct_size = Interop.SizeOf<rf_piece>() };
            using (Enter(cancellation)) // the text is the session's
            {
                int status = Native.rf_session_next(handle, ref native, out IntPtr error);
                Status outcome = Interop.Check(status, error, cancellation);
                var piece = new Piece(native, outcome != Status.Ok);
                Finish = piece.Finish;
                return piece;
            }
        }

        /// <summary>Shortens the session to its first tokens.</summary>
        public void Rewind(int tokens)
        {
            using (Enter(default)) Shorten(tokens);
        }

        /// <summary>Ends what the session is doing, if anything, and frees it.</summary>
        public void Dispose()
        {
            RaiseCancel();
            handle.Dispose();
            cancel.Dispose();
        }

        /// <summary>Brings the session to hold these tokens, keeping what it has in common with them.</summary>
        private void Become(uint[] tokens, CancellationToken cancellation)
        {
            using (Enter(cancellation))
            {
                uint[] held = ReadTokens();
                int common = 0;
                // The last one has to be computed anew: rewinding drops the logits.
                while (common < held.Length && common < tokens.Length - 1 && held[common] == tokens[common]) common++;
                Shorten(common);
                Append(tokens.AsSpan(common).ToArray(), cancellation);
            }
        }

        private uint[] ReadTokens()
        {
            Interop.Check(Native.rf_session_tokens(handle, out IntPtr tokens, out UIntPtr count, out IntPtr error),
                error);
            return Interop.CopyTokens(tokens, count);
        }

        private void Shorten(int tokens)
        {
            Interop.Check(Native.rf_session_rewind(handle, (UIntPtr)checked((uint)tokens), out IntPtr error), error);
        }

        private void Append(uint[] tokens, CancellationToken cancellation)
        {
            int status = Native.rf_session_decode(handle, tokens, (UIntPtr)tokens.Length, out IntPtr error);
            Interop.Check(status, error, cancellation);
        }

        private int Usage(out int capacity)
        {
            using (Enter(default))
            {
                int status = Native.rf_session_usage(handle, out UIntPtr used, out UIntPtr fit, out IntPtr error);
                Interop.Check(status, error);
                capacity = Interop.Length(fit);
                return Interop.Length(used);
            }
        }

        private static Hold HoldOf(Sampler sampler) => sampler == null ? default : new Hold(sampler.Handle);

        private void RaiseCancel()
        {
            try
            {
                Native.rf_cancel_token_cancel(cancel);
            }
            catch (ObjectDisposedException)
            {
                // The session is gone: there is nothing to stop.
            }
        }

        private void LowerCancel()
        {
            try
            {
                Native.rf_cancel_token_reset(cancel);
            }
            catch (ObjectDisposedException)
            {
                // Disposed by another thread meanwhile: the session stays cancelled.
            }
        }

        /// <summary>
        /// Makes the session the caller's until the result is disposed. The library refuses a second thread itself, but
        /// only during its calls; this covers the time in which memory that it lent is read, too.
        /// </summary>
        private Use Enter(CancellationToken cancellation)
        {
            cancellation.ThrowIfCancellationRequested();
            var hold = new Hold(handle);
            if (Interlocked.CompareExchange(ref busy, 1, 0) != 0)
            {
                hold.Dispose();
                throw new RocmForgeException(ErrorCode.Busy, "the session is in use on another thread");
            }
            try
            {
                return new Use(this, hold, cancellation);
            }
            catch
            {
                Leave(hold);
                throw;
            }
        }

        private void Leave(Hold hold)
        {
            Volatile.Write(ref busy, 0);
            hold.Dispose();
        }

        /// <summary>The time in which a caller has the session, its cancellation connected to the library's.</summary>
        private struct Use : IDisposable
        {
            private readonly Session session;
            private readonly Hold hold;
            private readonly CancellationToken cancellation;
            private readonly CancellationTokenRegistration registration;

            internal Use(Session session, Hold hold, CancellationToken cancellation)
            {
                this.session = session;
                this.hold = hold;
                this.cancellation = cancellation;
                registration = cancellation.Register(Raise, session);
            }

            public void Dispose()
            {
                registration.Dispose(); // waits for a Raise that is on its way
                if (cancellation.IsCancellationRequested) session.LowerCancel();
                session.Leave(hold);
            }
        }
    }
}
