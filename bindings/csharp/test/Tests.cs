// Tests of the binding: Tests layout-source | layout HEADER PRINTED | lives MODEL | MODEL FOLDER
using System;
using System.Collections.Generic;
using System.Linq;
using System.Text;
using System.Threading;
using System.Threading.Tasks;
using RocmForge;

static partial class Tests
{
    private const string Question = "In which city is the Eiffel Tower?";

    private static string modelPath, folder;
    private static Engine engine;
    private static Model model;
    private static Sampler greedy;

    static int Main(string[] args)
    {
        if (args[0] == "layout-source")
        {
            Console.Write(Layout.Source());
            return 0;
        }
        if (args[0] == "layout")
        {
            Layout.Compare(args[1], args[2]);
            return Check.Summary();
        }
        bool lives = args[0] == "lives";
        modelPath = args[lives ? 1 : 0];
        folder = args[1];
        using (engine = NewEngine())
        using (model = engine.LoadModel(modelPath))
        using (greedy = NewGreedy())
        {
            if (lives)
            {
                RunLives();
                return Check.Summary();
            }
            RunText();
            RunStreams();
            RunErrors();
            RunLoads();
        }
        return Check.Summary();
    }

    /// <summary>On the CPU, whatever the machine has: these tests are about the binding.</summary>
    private static Engine NewEngine() => new Engine(new EngineOptions { Gpus = "none" });

    private static Sampler NewGreedy() => new Sampler(new SamplerOptions { Flags = SamplerFlags.Greedy });

    private static Session NewSession() => model.CreateSession(new SessionOptions { Context = 2048 });

    private static ChatMessage[] Ask(string question) => new[] { ChatMessage.User(question) };

    private static GenerateOptions Greedily(int maxTokens, GenerateFlags flags = GenerateFlags.IgnoreEnd) =>
        new GenerateOptions { Sampler = greedy, MaxTokens = maxTokens, Flags = flags };

    private static string ReadAll(PieceStream stream)
    {
        var text = new StringBuilder();
        stream.ForEachAsync(piece => text.Append(piece)).GetAwaiter().GetResult();
        return text.ToString();
    }

    /// <summary>The same answer by the calls of the C interface, one for one.</summary>
    private static string ByHand(string question, int maxTokens)
    {
        using (Session session = NewSession())
        {
            uint[] prompt = model.Tokenize(model.FormatChat(Ask(question)),
                TokenizeFlags.AddSpecial | TokenizeFlags.Special);
            session.Decode(prompt);
            var tokens = new List<uint>();
            while (tokens.Count < maxTokens)
            {
                float[] logits = session.Logits;
                uint token = (uint)Array.IndexOf(logits, logits.Max());
                Check.Equal(token, session.Sample(greedy), "the likeliest token");
                tokens.Add(token);
                session.Decode(new[] { token });
            }
            Check.Equal(prompt.Length + maxTokens, session.Used, "tokens that the session holds");
            return model.Detokenize(tokens.ToArray());
        }
    }

    private static void RunText()
    {
        Check.Test("library tells about itself", () =>
        {
            Check.True(Library.IsCompatible, "not compatible");
            Check.True(Library.HasFeature("cpu") && !Library.HasFeature("no such feature"), "features");
            Check.Equal(2, Library.Version.Count(c => c == '.'), "dots in " + Library.Version);
        });
        Check.Test("model tells about itself", () =>
        {
            Check.Equal(49152, model.Info.VocabularySize, "vocabulary");
            Check.Equal(30, model.Info.BlockCount, "layers");
            Check.True(model.Info.HasChatTemplate && model.ChatTemplate.Contains("<|im_start|>"), "chat template");
            Check.True(model.MetadataKeys.Contains("general.architecture"), "no architecture among the keys");
            Check.Equal("llama", model.MetadataValue("general.architecture"), "architecture");
            Check.True(model.IsEndToken(model.SpecialToken(SpecialToken.Eos)), "end of sequence ends nothing");
            Check.Equal("<|im_end|>", model.TokenText(model.SpecialToken(SpecialToken.Eos)), "end of sequence");
            MemoryEstimate estimate = engine.Estimate(modelPath);
            Check.True(estimate.HostBytes > 50e6 && estimate.HostBytes < 500e6, estimate.HostBytes + " bytes");
            Check.Equal(model.Info.KvBytesPerToken, estimate.KvBytesPerToken, "cache of a token");
        });
        Check.Test("text becomes tokens and text again", () =>
        {
            foreach (string text in new[] { "", "Hello", "Käse, 東京, 🦙\0 and a \"quote\" \\", new string('é', 5000) })
                Check.Equal(text, model.Detokenize(model.Tokenize(text)), "text");
            uint[] plain = model.Tokenize("<|im_start|>"), special = model.Tokenize("<|im_start|>",
                TokenizeFlags.Special);
            Check.True(plain.Length > 1 && special.Length == 1, "control tokens in a user's text");
            Check.Equal("", model.Detokenize(special), "control token");
            Check.Equal("<|im_start|>", model.Detokenize(special, TokenizeFlags.Special), "control token");
        });
        Check.Test("conversations survive the way through JSON", () =>
        {
            string odd = "a \"b\" \\ \n\t\u0001 🦙 </s>";
            string prompt = model.FormatChat(new[] { ChatMessage.System("Be brief."), ChatMessage.User(odd) });
            Check.True(prompt.Contains("Be brief.") && prompt.Contains(odd), prompt);
            Check.True(prompt.TrimEnd().EndsWith("<|im_start|>assistant"), prompt);
            string whole = model.FormatChat(Ask("Hi"), new ChatOptions { Flags = ChatFlags.NoGenerationPrompt });
            Check.True(!whole.TrimEnd().EndsWith("assistant"), whole);
            Check.Equal("1 user", model.FormatChat(Ask("Hi"), new ChatOptions
            {
                ChatTemplate = "{{ messages | length }} {{ messages[0].role }}",
            }), "another template");
        });
    }

    private static void RunStreams()
    {
        Check.Test("stream gives what the single calls give", () =>
        {
            using (Session session = NewSession())
            {
                string streamed = ReadAll(session.Chat(Ask(Question), Greedily(48)));
                Check.Equal(ByHand(Question, 48), streamed, "answer");
                Check.Equal(FinishReason.MaxTokens, session.Finish, "reason");
                Check.True(streamed.Contains("Paris"), streamed);
                streamed = ReadAll(session.Chat(Ask(Question), Greedily(256, GenerateFlags.None)));
                Check.Equal(FinishReason.EndToken, session.Finish, "reason for " + streamed);
                SessionStats stats = session.Stats;
                Check.True(stats.PrefillTokens > 10 && stats.DecodeTokens > 50 && stats.KvBytes > 0, "not counted");
            }
        });
        Check.Test("a second turn computes only what is new", () =>
        {
            using (Session session = NewSession())
            {
                var messages = new List<ChatMessage>(Ask(Question));
                messages.Add(ChatMessage.Assistant(ReadAll(session.Chat(messages, Greedily(64, GenerateFlags.None)))));
                messages.Add(ChatMessage.User("And of Italy?"));
                ulong before = session.Stats.PrefillTokens;
                ReadAll(session.Chat(messages, Greedily(4)));
                int prompt = model.Tokenize(model.FormatChat(messages), TokenizeFlags.Special).Length;
                ulong computed = session.Stats.PrefillTokens - before;
                Check.True(computed > 0 && computed < (ulong)prompt / 2, computed + " of " + prompt + " tokens");
            }
        });
        Check.Test("options reach the library", () =>
        {
            using (Session session = NewSession())
            {
                string full = ReadAll(session.Chat(Ask(Question), Greedily(32)));
                GenerateOptions options = Greedily(32);
                options.StopStrings = new[] { "never this", "Paris" };
                Check.Equal(full.Substring(0, full.IndexOf("Paris")), ReadAll(session.Chat(Ask(Question), options)),
                    "text before a stop string");
                Check.Equal(FinishReason.StopString, session.Finish, "reason");
                uint paris = model.Tokenize(" Paris")[0];
                options = Greedily(32);
                options.StopTokens = new[] { 0u, paris };
                ReadAll(session.Chat(Ask(Question), options));
                Check.Equal(FinishReason.EndToken, session.Finish, "reason");
                var bias = new Dictionary<uint, float> { { 7, 0.5f }, { paris, float.NegativeInfinity } };
                using (var other = new Sampler(new SamplerOptions { Flags = SamplerFlags.Greedy, LogitBias = bias }))
                {
                    options = new GenerateOptions { Sampler = other, MaxTokens = 32 };
                    Check.True(!ReadAll(session.Chat(Ask(Question), options)).Contains(" Paris"), "forbidden token");
                }
                using (var seeded = new Sampler(new SamplerOptions { Seed = 7, Temperature = 1.5f }))
                {
                    options = new GenerateOptions { Sampler = seeded, MaxTokens = 32 };
                    string first;
                    using (Session another = NewSession()) first = ReadAll(another.Chat(Ask(Question), options));
                    using (Session another = NewSession())
                        Check.Equal(first, ReadAll(another.Chat(Ask(Question), options)), "seeded text");
                    Check.True(first != full, "the seeded text is the greedy one");
                }
            }
        });
        Check.Test("a full context is an error, or an end if asked for", () =>
        {
            using (Session session = model.CreateSession(new SessionOptions { Context = 64 }))
            {
                Check.Equal(64, session.Capacity, "capacity");
                var e = Check.Throws<RocmForgeException>(() => ReadAll(session.Chat(Ask(Question), Greedily(0))));
                Check.Equal(ErrorCode.ContextFull, e.Code, e.Message);
                GenerateFlags flags = GenerateFlags.IgnoreEnd | GenerateFlags.StopWhenFull;
                Check.True(ReadAll(session.Chat(Ask(Question), Greedily(0, flags))).Length > 0, "no text");
                Check.Equal(FinishReason.Full, session.Finish, "reason");
            }
        });
        Check.Test("two tasks on one model", () =>
        {
            string[] questions = { Question, "Write a short poem about the sea." };
            string[] alone = questions.Select(question => ByHand(question, 40)).ToArray();
            Task<string>[] tasks = questions.Select(question => Task.Run(() =>
            {
                using (Session session = NewSession()) return ReadAll(session.Chat(Ask(question), Greedily(40)));
            })).ToArray();
            for (int i = 0; i < tasks.Length; i++) Check.Equal(alone[i], tasks[i].Result, questions[i]);
            Check.True(alone[0] != alone[1], "both answers are the same");
        });
        RunCancellation();
    }
}
