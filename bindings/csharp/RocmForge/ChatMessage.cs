using System.Collections.Generic;
using System.Globalization;
using System.Text;

namespace RocmForge
{
    /// <summary>A message of a conversation.</summary>
    public sealed class ChatMessage
    {
        /// <summary>Who speaks: "system", "user", "assistant", or what else the model's template knows.</summary>
        public string Role { get; }
        /// <summary>What is said.</summary>
        public string Content { get; }

        /// <summary>A message.</summary>
        public ChatMessage(string role, string content)
        {
            Role = role;
            Content = content;
        }

        /// <summary>What the user says.</summary>
        public static ChatMessage User(string content) => new ChatMessage("user", content);

        /// <summary>What the model has said.</summary>
        public static ChatMessage Assistant(string content) => new ChatMessage("assistant", content);

        /// <summary>What the model is told to be.</summary>
        public static ChatMessage System(string content) => new ChatMessage("system", content);

        /// <summary>The JSON array that the library takes. netstandard2.1 has no writer of JSON of its own.</summary>
        internal static string ToJson(IEnumerable<ChatMessage> messages)
        {
            var json = new StringBuilder("[");
            foreach (ChatMessage message in messages)
            {
                if (json.Length > 1) json.Append(',');
                json.Append("{\"role\":");
                AppendString(json, message.Role);
                json.Append(",\"content\":");
                AppendString(json, message.Content);
                json.Append('}');
            }
            return json.Append(']').ToString();
        }

        private static void AppendString(StringBuilder json, string text)
        {
            json.Append('"');
            foreach (char c in text ?? "")
            {
                if (c == '"' || c == '\\') json.Append('\\').Append(c);
                else if (c < ' ') json.Append("\\u").Append(((int)c).ToString("x4", CultureInfo.InvariantCulture));
                else json.Append(c);
            }
            json.Append('"');
        }
    }
}
