using System;
using System.Collections.Generic;

namespace RocmForge
{
    /// <summary>
    /// A loaded model. Any number of threads and sessions may use it at once; it may be disposed before its sessions.
    /// </summary>
    public sealed class Model : IDisposable
    {
        internal ModelHandle Handle { get; }

        internal Model(ModelHandle handle)
        {
            Handle = handle;
        }

        /// <summary>What the model is.</summary>
        public ModelInfo Info
        {
            get
            {
                var native = new rf_model_info { struct_size = Interop.SizeOf<rf_model_info>() };
                Interop.Check(Native.rf_model_get_info(Handle, ref native, out IntPtr error), error);
                return new ModelInfo(native);
            }
        }

        /// <summary>The Jinja source of the model's chat template.</summary>
        public string ChatTemplate => Interop.ReadText(
            (byte[] buffer, UIntPtr capacity, out UIntPtr needed, out IntPtr error) =>
                Native.rf_model_chat_template(Handle, buffer, capacity, out needed, out error));

        /// <summary>The keys of the file's metadata, in its order.</summary>
        public IReadOnlyList<string> MetadataKeys
        {
            get
            {
                var keys = new string[Interop.Length(Native.rf_model_metadata_count(Handle))];
                for (int i = 0; i < keys.Length; i++)
                {
                    var index = (UIntPtr)i;
                    keys[i] = Interop.ReadText(
                        (byte[] buffer, UIntPtr capacity, out UIntPtr needed, out IntPtr error) =>
                            Native.rf_model_metadata_key(Handle, index, buffer, capacity, out needed, out error));
                }
                return keys;
            }
        }

        /// <summary>A value of the metadata: text as it is, a number in decimal, an array as JSON.</summary>
        public string MetadataValue(string key)
        {
            var utf8 = new Utf8(key, nameof(key));
            return Interop.ReadText((byte[] buffer, UIntPtr capacity, out UIntPtr needed, out IntPtr error) =>
                Native.rf_model_metadata_value(Handle, utf8.Bytes, utf8.Length, buffer, capacity, out needed,
                    out error));
        }

        /// <summary>The number of a special token.</summary>
        /// <exception cref="RocmForgeException">The model has no such token.</exception>
        public uint SpecialToken(SpecialToken which)
        {
            int status = Native.rf_model_special_token(Handle, (uint)which, out uint token, out IntPtr error);
            Interop.Check(status, error);
            return token;
        }

        /// <summary>Whether a token ends a generation.</summary>
        public bool IsEndToken(uint token) => Native.rf_model_is_end_token(Handle, token) != 0;

        /// <summary>The tokens of a text.</summary>
        public uint[] Tokenize(string text, TokenizeFlags flags = TokenizeFlags.None)
        {
            var utf8 = new Utf8(text, nameof(text));
            // Seldom more tokens than bytes; then the library says how many.
            var tokens = new uint[utf8.Bytes.Length + 16];
            while (true)
            {
                int status = Native.rf_model_tokenize(Handle, utf8.Bytes, utf8.Length, (uint)flags, tokens,
                    (UIntPtr)tokens.Length, out UIntPtr count, out IntPtr error);
                if (status != (int)ErrorCode.Buffer)
                {
                    Interop.Check(status, error);
                    Array.Resize(ref tokens, Interop.Length(count));
                    return tokens;
                }
                Native.rf_error_free(error);
                tokens = new uint[Interop.Length(count)];
            }
        }

        /// <summary>The text of tokens; control tokens too with <see cref="TokenizeFlags.Special"/>.</summary>
        public string Detokenize(uint[] tokens, TokenizeFlags flags = TokenizeFlags.None)
        {
            if (tokens == null) throw new ArgumentNullException(nameof(tokens));
            return Interop.ReadText((byte[] buffer, UIntPtr capacity, out UIntPtr needed, out IntPtr error) =>
                Native.rf_model_detokenize(Handle, tokens, (UIntPtr)tokens.Length, (uint)flags, buffer, capacity,
                    out needed, out error));
        }

        /// <summary>One token as the vocabulary writes it: for looking at, not for joining to a text.</summary>
        public string TokenText(uint token)
        {
            return Interop.ReadText((byte[] buffer, UIntPtr capacity, out UIntPtr needed, out IntPtr error) =>
                Native.rf_model_token_text(Handle, token, buffer, capacity, out needed, out error));
        }

        /// <summary>
        /// The text of a conversation as the model's chat template writes it. Tokenize it with
        /// <see cref="TokenizeFlags.AddSpecial"/> and <see cref="TokenizeFlags.Special"/>.
        /// </summary>
        public string FormatChat(IEnumerable<ChatMessage> messages, ChatOptions options = null)
        {
            if (messages == null) throw new ArgumentNullException(nameof(messages));
            return FormatChat(ChatMessage.ToJson(messages), options);
        }

        /// <summary>The same for messages as a JSON array, which may have more than a role and a content.</summary>
        public string FormatChat(string messagesJson, ChatOptions options = null)
        {
            var utf8 = new Utf8(messagesJson, nameof(messagesJson));
            using (var arena = new Arena())
            {
                rf_chat_options native = (options ?? new ChatOptions()).ToNative(arena);
                return Interop.ReadText((byte[] buffer, UIntPtr capacity, out UIntPtr needed, out IntPtr error) =>
                    Native.rf_model_format_chat(Handle, utf8.Bytes, utf8.Length, ref native, buffer, capacity,
                        out needed, out error));
            }
        }

        /// <summary>Makes an empty session.</summary>
        public Session CreateSession(SessionOptions options = null)
        {
            return new Session(this, options ?? new SessionOptions());
        }

        /// <summary>Frees the model; its sessions keep what they need of it.</summary>
        public void Dispose() => Handle.Dispose();
    }
}
