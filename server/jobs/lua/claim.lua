-- ARGV: group, worker, nonce, entry, most attempts, result ttl, tombstone ttl, body if late, body if worn out.
-- Returns {'claimed', epoch, attempts, seq, ms since submit, params} | {'ended', state, why} | {'gone'}.
local group, worker, nonce, entry = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local pending = redis.call('XPENDING', KEYS[3], group, entry, entry, 1)
if #pending == 0 or pending[1][2] ~= worker then
  return {'gone'}
end
local state = field('state')
if field('entry') ~= entry or state == '' or is_terminal(state) then
  leave_queue(group, entry)
  return {'gone'}
end
if field('nonce') ~= nonce then
  local deadline = number('deadline')
  if field('cancel') == '1' then
    conclude(group, 'canceled', '{}', ARGV[6], ARGV[7])
    return {'ended', 'canceled', 'canceled'}
  end
  if deadline > 0 and now >= deadline then
    conclude(group, 'failed', ARGV[8], ARGV[6], ARGV[7])
    return {'ended', 'failed', 'late'}
  end
  if number('attempts') >= tonumber(ARGV[5]) then
    conclude(group, 'failed', ARGV[9], ARGV[6], ARGV[7])
    return {'ended', 'failed', 'worn_out'}
  end
  local attempts = redis.call('HINCRBY', KEYS[1], 'attempts', 1)
  redis.call('HINCRBY', KEYS[1], 'epoch', 1)
  redis.call('HSET', KEYS[1], 'state', 'running', 'owner', worker, 'nonce', nonce)
  if redis.call('HSETNX', KEYS[1], 'started', now) == 1 then
    append('started', '{"attempt":' .. attempts .. '}')
  end
end
return {'claimed', field('epoch'), field('attempts'), field('seq'), now - number('created'), field('params')}
